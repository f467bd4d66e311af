"""Every kernel backend against the recurrence: values, gradients, memory; float32 accuracy is in `test_scan.py`."""

import importlib.util
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from stereo_sashimi.nn.s4 import S4Config, S4DConfig
from stereo_sashimi.ops.discretize import Discrete, bilinear, zero_order_hold
from stereo_sashimi.ops.kernels import cauchy, krylov
from stereo_sashimi.ops.s4_response import recurrence

KINDS = ["dplr", "diagonal", "zoh"]
H, M = 2, 3
lengths = st.sampled_from([1, 2, 3, 4, 5, 7, 8, 13, 31, 32, 33, 47])


def leaf_parameters(seed: int) -> dict[str, torch.Tensor]:
    """Continuous parameters as real float64 leaves."""
    g = torch.Generator().manual_seed(seed)
    shapes = {"A_real": (H, M), "A_imag": (H, M), "P": (H, M, 2), "B": (H, M, 2), "C": (H, M, 2), "log_dt": (H,)}
    return {k: torch.randn(s, dtype=torch.float64, generator=g).requires_grad_() for k, s in shapes.items()}


def discrete(kind: str, p: dict[str, torch.Tensor]) -> Discrete:
    lam = torch.complex(-p["A_real"].exp(), 3 * p["A_imag"])
    p_factor, b, c = (torch.view_as_complex(p[name]) for name in "PBC")
    dt = (p["log_dt"] - 2).exp()
    if kind == "zoh":
        return zero_order_hold(lam, b, c, dt)
    return bilinear(lam, p_factor if kind == "dplr" else None, b, c, dt)


def by_recurrence(ssm: Discrete, length: int) -> torch.Tensor:
    """The answer to an impulse."""
    impulse = torch.zeros(1, ssm.a.shape[0], length, dtype=ssm.a.real.dtype)
    impulse[..., 0] = 1
    return recurrence(ssm, impulse, torch.zeros(1, *ssm.a.shape, dtype=ssm.a.dtype))[0][0]


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 2**31), length=lengths)
@settings(max_examples=15, deadline=None)
def test_kernels_and_their_gradients_are_those_of_the_recurrence(kind, seed, length):
    parameters = leaf_parameters(seed)
    weight = torch.randn(H, length, dtype=torch.float64)
    results = []
    for kernel in (by_recurrence, krylov.kernel, cauchy.kernel):
        value = kernel(discrete(kind, parameters), length)
        gradients = torch.autograd.grad(
            (value * weight).sum(), list(parameters.values()), allow_unused=True, materialize_grads=True
        )
        results.append((value.detach(), *gradients))
    for other in results[1:]:
        for ours, expected in zip(other, results[0], strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-7, atol=1e-9 * (1 + expected.abs().max().item()))
    # P plays no part in a diagonal kernel; everything else does.
    moved = {name for name, g in zip(parameters, results[0][1:], strict=True) if g.abs().max() > 0}
    assert moved == set(parameters) - (set() if kind == "dplr" else {"P"})


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_of_frequencies_change_nothing(kind, monkeypatch):
    ssm = discrete(kind, leaf_parameters(1))
    whole = cauchy.kernel(ssm, 40)
    monkeypatch.setattr(cauchy, "BLOCK_ELEMENTS", 4 * H * M)
    torch.testing.assert_close(cauchy.kernel(ssm, 40), whole, rtol=1e-12, atol=1e-12)


class LargestTensor(TorchDispatchMode):
    """Remembers the most elements that any tensor had."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        sizes = (leaf.numel() for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor))
        self.largest = max(self.largest, *sizes, 0)
        return out


@pytest.mark.parametrize("config", [S4Config(), S4DConfig()], ids=["s4", "s4d"])
@pytest.mark.parametrize("kernel", [krylov.kernel, cauchy.kernel], ids=["krylov", "reference"])
def test_no_tensor_is_as_large_as_channels_times_modes_times_length(kernel, config, monkeypatch):
    """Forward and backward; the reference with small blocks, whose recomputation is what is tested."""
    monkeypatch.setattr(cauchy, "BLOCK_ELEMENTS", 1 << 19)
    h, length = 16, 16384
    layer = config.build(h)
    with LargestTensor() as seen:
        kernel(layer.discretize(), length).square().sum().backward()
    assert layer.C.grad is not None
    assert h * length <= seen.largest < h * (config.d_state // 2) * length / 4


def test_the_memory_law_would_notice_a_naive_kernel():
    ssm = S4DConfig(d_state=8).build(2).discretize()
    with LargestTensor() as seen:
        powers = ssm.a.unsqueeze(-1) ** torch.arange(64)
        (2 * (ssm.c * ssm.b).unsqueeze(-1) * powers).real.sum(1).square().sum().backward()
    assert seen.largest >= 2 * 4 * 64


KEOPS = """
import torch
from stereo_sashimi.nn.s4 import S4Config, S4DConfig
from stereo_sashimi.ops.s4_response import KERNELS, resolve
assert resolve("keops") == "keops"
for config in (S4Config(d_state=8), S4DConfig(d_state=8)):
    layer = config.build(2).double()
    results = []
    for name in ("krylov", "keops"):
        layer.zero_grad()
        value = KERNELS[name](layer.discretize(), 101)
        (value * torch.arange(101)).sum().backward()
        results.append([value.detach(), *(p.grad for p in layer.parameters())])
    for fast, expected in zip(results[1], results[0]):
        torch.testing.assert_close(fast, expected, rtol=1e-7, atol=1e-9)
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("pykeops") is None, reason="pykeops is not installed")
def test_keops_computes_the_same_kernels_and_gradients():
    """In a process of its own: importing pykeops prints, warns and probes CUDA; the first use compiles."""
    result = subprocess.run([sys.executable, "-c", KEOPS], capture_output=True, text=True, timeout=280)
    assert result.returncode == 0, result.stderr
