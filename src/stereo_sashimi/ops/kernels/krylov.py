"""Kernel and state transfer by two-level Krylov products: no array of size channels x state x length.

With T about sqrt(L):  V = [B, A B, .. A^(T-1) B],  W = [C; C A^T; C A^2T; ..],  K = W V  (both by doubling).
In SaShiMi's tied form A_bar is a contraction, so repeated products are stable. A_bar with a rank-1 part is used
as a dense real matrix in the basis [Re x; Im x]; a diagonal one stays element-wise and complex. Powers are kept as
A^k - 1, see `_square`.
"""

from typing import NamedTuple

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from stereo_sashimi.ops.discretize import Discrete


class Basis(NamedTuple):
    """One SSM in the basis where its powers are taken.

    `power`: A_bar - 1 as (h, n, n) real if dense, (h, m) complex if diagonal. `b`, `c`: (h, n) real or (h, m) complex,
    with y = sum(c * x) if dense and y = Re(sum(c * x)) if diagonal.
    """

    power: Tensor
    b: Tensor
    c: Tensor


def kernel(ssm: Discrete, length: int, dtype: torch.dtype | None = None) -> Float[Tensor, "h length"]:
    """K_l = 2 Re(C A_bar^l B_bar) for l < length, in the real precision `dtype` (None: that of `ssm`)."""
    dtype = dtype or ssm.delta.real.dtype
    basis = _basis(ssm, dtype)
    return _two_level(basis.power, basis.c, basis.b, length, dtype)


def carry(
    ssm: Discrete, u: Float[Tensor, "batch h length"], state: Complex[Tensor, "batch h m"]
) -> tuple[Float[Tensor, "batch h length"], Complex[Tensor, "batch h m"]]:
    """What a carried state adds to a segment's output, 2 Re(C A_bar^(t+1) x), and the state after the segment."""
    length = u.shape[-1]
    if length == 0:
        return torch.zeros_like(u), state
    basis = _basis(ssm, u.dtype)
    x = torch.cat([state.real, state.imag], dim=-1) if ssm.left is not None else state.to(basis.power.dtype)
    following = _times(basis.power, x.unsqueeze(-1)).squeeze(-1)
    response = _two_level(basis.power, basis.c, following, length, u.dtype)
    x = _raise(basis.power, x, length) + _fold(basis, u)
    x = torch.complex(*x.chunk(2, dim=-1)) if ssm.left is not None else x
    return response, x.to(state.dtype)


def row_times_power(ssm: Discrete, exponent: int) -> Complex[Tensor, "h m"]:
    """C A_bar^exponent as representatives of conjugate pairs (used to truncate the generating function)."""
    basis = _basis(ssm, ssm.delta.real.dtype)
    if ssm.left is None:
        return ssm.c * _raise(basis.power, torch.ones_like(basis.power), exponent)
    row = _raise(basis.power.mT, basis.c, exponent)
    re, im = row.chunk(2, dim=-1)
    return torch.complex(re, -im) / 2


def dense(ssm: Discrete) -> Float[Tensor, "h n n"]:
    """A_bar as a real matrix acting on [Re x; Im x]."""
    delta = _dense_delta(ssm)
    return delta + torch.eye(delta.shape[-1], dtype=delta.dtype, device=delta.device)


def _dense_delta(ssm: Discrete) -> Float[Tensor, "h n n"]:
    if ssm.left is None or ssm.right is None:
        raise ValueError("dense() is for an SSM with a rank-1 part; a diagonal one needs no matrix.")
    re, im = torch.diag_embed(ssm.delta.real), torch.diag_embed(ssm.delta.imag)
    diagonal = torch.cat([torch.cat([re, -im], dim=-1), torch.cat([im, re], dim=-1)], dim=-2)
    left = torch.cat([ssm.left.real, ssm.left.imag], dim=-1)
    right = 2 * torch.cat([ssm.right.real, -ssm.right.imag], dim=-1)
    return diagonal + left.unsqueeze(-1) * right.unsqueeze(-2)


def _basis(ssm: Discrete, dtype: torch.dtype) -> Basis:
    """Dense matrices in `dtype`; a diagonal SSM in float64, which costs little as it needs only its first powers."""
    if ssm.left is None:
        ssm = ssm.to(torch.complex128)
        return Basis(power=ssm.delta, b=ssm.b, c=2 * ssm.c)
    return Basis(
        power=_dense_delta(ssm).to(dtype),
        b=torch.cat([ssm.b.real, ssm.b.imag], dim=-1).to(dtype),
        c=2 * torch.cat([ssm.c.real, -ssm.c.imag], dim=-1).to(dtype),
    )


def _times(power: Tensor, x: Tensor) -> Tensor:
    """A x for columns x (.., h, n, k)."""
    return x + (power.unsqueeze(-1) * x if power.is_complex() else power @ x)


def _square(power: Tensor) -> Tensor:
    """A^2 - 1 of A - 1. Next to the unit circle A itself would lose digits that every squaring doubles."""
    return 2 * power + power * power if power.is_complex() else torch.baddbmm(power, power, power, beta=2)


def _two_level(power: Tensor, c: Tensor, x: Tensor, length: int, dtype: torch.dtype) -> Tensor:
    """c A^l x for l < length; x (.., h, n) may have leading batch axes, the result is (.., h, length) in `dtype`."""
    block = 1 << max(0, ((length - 1).bit_length() + 1) // 2)
    columns, power = _columns(power, x, block)
    n_blocks = -(-length // block)
    rows = c.unsqueeze(-2)
    while rows.shape[-2] < n_blocks:
        shifted = rows * power.unsqueeze(-2) if power.is_complex() else rows @ power
        rows = torch.cat([rows, rows + shifted], dim=-2)
        if rows.shape[-2] < n_blocks:
            power = _square(power)
    rows = rows[..., :n_blocks, :]
    if rows.is_complex():
        rows = torch.cat([rows.real, -rows.imag], dim=-1)
        columns = torch.cat([columns.real, columns.imag], dim=-2)
    return (rows.to(dtype) @ columns.to(dtype)).flatten(-2)[..., :length]


def _columns(power: Tensor, x: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """[x, A x, .. A^(block-1) x] as (.., h, n, block), and A^block - 1; block is a power of two."""
    columns = x.unsqueeze(-1)
    while columns.shape[-1] < block:
        columns = torch.cat([columns, _times(power, columns)], dim=-1)
        power = _square(power)
    return columns, power


def _raise(power: Tensor, x: Tensor, exponent: int) -> Tensor:
    """A^exponent x by binary powers, x (.., h, n)."""
    while exponent:
        if exponent & 1:
            x = _times(power, x.unsqueeze(-1)).squeeze(-1)
        exponent >>= 1
        if exponent:
            power = _square(power)
    return x


def _fold(basis: Basis, u: Tensor) -> Tensor:
    """sum_t A^(length-1-t) b u_t: blocks by one matrix product, then neighbours in pairs."""
    length = u.shape[-1]
    block = 1 << max(0, ((length - 1).bit_length() + 1) // 2)
    n_blocks = 1 << (-(-length // block) - 1).bit_length()
    # Zeros in front of a zero state change nothing, and make every block whole.
    u = torch.nn.functional.pad(u, (n_blocks * block - length, 0)).unflatten(-1, (n_blocks, block))
    columns, power = _columns(basis.power, basis.b, block)
    reverse = columns.flip(-1)
    parts = torch.view_as_real(reverse).unbind(-1) if reverse.is_complex() else (reverse,)
    products = [u @ part.to(u.dtype).mT for part in parts]
    states = torch.complex(*products) if reverse.is_complex() else products[0]
    while states.shape[-2] > 1:
        earlier, later = states[..., 0::2, :], states[..., 1::2, :]
        states = later + _times(power, earlier.mT).mT
        power = _square(power)
    return states.squeeze(-2)
