"""The discretisation against matrices written out in full, and the recurrence that runs on it.

Convolution kernels made from it are in `test_kernels.py`; numbers of the original are in tests/golden.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stereo_sashimi.ops.discretize import Discrete, bilinear, zero_order_hold
from stereo_sashimi.ops.kernels import krylov
from stereo_sashimi.ops.s4_response import advance, recurrence, step

seeds = st.integers(0, 2**31)
modes = st.integers(1, 5)
log_dts = st.floats(-7, 1)
H = 2


def parameters(seed: int, m: int, log_dt: float) -> tuple[torch.Tensor, ...]:
    """Lambda (Re < 0), P, B, C of (H, m) and dt of (H,), in float64."""
    g = torch.Generator().manual_seed(seed)

    def draw() -> torch.Tensor:
        return torch.randn(H, m, dtype=torch.complex128, generator=g)

    lam = draw() * 10
    lam = torch.complex(-lam.real.abs() - 0.05, lam.imag)
    return lam, draw(), draw(), draw(), torch.tensor([log_dt, log_dt / 2], dtype=torch.float64).exp()


def full(x: torch.Tensor) -> torch.Tensor:
    return torch.cat([x, x.conj()], dim=-1)


def full_matrix(ssm: Discrete) -> torch.Tensor:
    a_bar = torch.diag_embed(full(ssm.a))
    if ssm.left is None:
        return a_bar
    return a_bar + full(ssm.left).unsqueeze(-1) * full(ssm.right).unsqueeze(-2)


@given(seed=seeds, m=modes, log_dt=log_dts, rank_one=st.booleans())
@settings(max_examples=40, deadline=None)
def test_bilinear_is_the_matrix_formula(seed, m, log_dt, rank_one):
    lam, p, b, c, dt = parameters(seed, m, log_dt)
    ssm = bilinear(lam, p if rank_one else None, b, c, dt)
    a = torch.diag_embed(full(lam))
    if rank_one:
        a = a - full(p).unsqueeze(-1) * full(p).conj().unsqueeze(-2)
    half = dt.reshape(H, 1, 1) / 2 * a
    eye = torch.eye(2 * m, dtype=a.dtype)
    torch.testing.assert_close(full_matrix(ssm), torch.linalg.solve(eye - half, eye + half), rtol=0, atol=1e-10)
    b_bar = dt.unsqueeze(-1) * torch.linalg.solve(eye - half, full(b).unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(full(ssm.b), b_bar, rtol=0, atol=1e-10)
    assert torch.equal(ssm.c, c)


@given(seed=seeds, m=modes, log_dt=log_dts)
@settings(max_examples=20, deadline=None)
def test_zero_order_hold_is_the_matrix_exponential(seed, m, log_dt):
    """Van Loan: exp([[A, B], [0, 0]] dt) = [[A_bar, B_bar], [0, 1]]."""
    lam, _, b, c, dt = parameters(seed, m, log_dt)
    ssm = zero_order_hold(lam, b, c, dt)
    block = torch.zeros(H, m + 1, m + 1, dtype=lam.dtype)
    block[:, :m, :m], block[:, :m, m] = torch.diag_embed(lam), b
    expected = torch.linalg.matrix_exp(block * dt.reshape(H, 1, 1))
    torch.testing.assert_close(torch.diag_embed(ssm.a), expected[:, :m, :m], rtol=0, atol=1e-10)
    torch.testing.assert_close(ssm.b, expected[:, :m, m], rtol=0, atol=1e-10)


def test_zero_order_hold_keeps_its_precision_for_tiny_steps():
    """(exp(x) - 1)/x loses every digit in float32 here; expm1 does not."""
    lam, b = torch.tensor([[-0.5 - 1e-4j]]), torch.ones(1, 1, dtype=torch.complex64)
    ssm = zero_order_hold(lam, b, b, torch.tensor([1e-7]))
    assert ssm.b.real.item() == pytest.approx(1e-7, rel=1e-5)


@given(seed=seeds, m=modes, log_dt=log_dts)
@settings(max_examples=30, deadline=None)
def test_every_discretisation_is_a_contraction(seed, m, log_dt):
    """Re Lambda < 0 and the tied form A = Lambda - P P^* keep all states from growing, at any step size."""
    lam, p, b, c, dt = parameters(seed, m, log_dt)
    for ssm in (bilinear(lam, p, b, c, dt), bilinear(lam, None, b, c, dt), zero_order_hold(lam, b, c, dt)):
        assert torch.linalg.matrix_norm(full_matrix(ssm), ord=2).max() <= 1 + 1e-12


@given(seed=seeds, m=modes, log_dt=log_dts, rank_one=st.booleans())
@settings(max_examples=20, deadline=None)
def test_a_step_is_the_matrix_recurrence(seed, m, log_dt, rank_one):
    lam, p, b, c, dt = parameters(seed, m, log_dt)
    ssm = bilinear(lam, p if rank_one else None, b, c, dt)
    state, u = torch.randn(3, H, m, dtype=torch.complex128), torch.randn(3, H, dtype=torch.float64)
    y, new = step(ssm, u, state)
    expected = (full_matrix(ssm) @ full(state).unsqueeze(-1)).squeeze(-1) + full(ssm.b) * u.unsqueeze(-1)
    torch.testing.assert_close(full(new), expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(y, (full(c) * expected).sum(-1).real, rtol=0, atol=1e-10)


@given(seed=seeds, m=modes, log_dt=log_dts, length=st.integers(0, 37), rank_one=st.booleans())
@settings(max_examples=40, deadline=None)
def test_a_segment_at_once_is_the_recurrence(seed, m, log_dt, length, rank_one):
    lam, p, b, c, dt = parameters(seed, m, log_dt)
    ssm = bilinear(lam, p if rank_one else None, b, c, dt)
    state, u = torch.randn(3, H, m, dtype=torch.complex128), torch.randn(3, H, length, dtype=torch.float64)
    y, after = advance(ssm, krylov.kernel(ssm, length), u, state)
    expected, expected_after = recurrence(ssm, u, state)
    torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(after, expected_after, rtol=1e-10, atol=1e-10)


def test_dense_refuses_a_diagonal_system():
    lam, _, b, c, dt = parameters(0, 2, -1.0)
    with pytest.raises(ValueError, match="rank-1"):
        krylov.dense(bilinear(lam, None, b, c, dt))
