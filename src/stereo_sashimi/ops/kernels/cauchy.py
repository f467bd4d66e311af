"""Kernel by the truncated generating function of the S4 paper: the readable reference backend.

With C~ = C (I - A_bar^L) and the roots of unity w_k = exp(-2 pi i k / L) (S4, appendix C.3):
  K^_k = C~ (I - w A_bar)^-1 B_bar,   K = irfft(K^)
For A_bar = diag(a) + left right^T the Woodbury identity turns the inverse into four Cauchy-like sums
  r(v)(w) = sum over the full state of v_n / (1 - w a_n)
  K^ = r(C~ b) + w r(C~ left) r(right b) / (1 - w r(right left)).
Written in the discrete a, the sums have no singular point at w = -1 and serve the diagonal layer as well.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Complex, Float
from opt_einsum import contract
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from stereo_sashimi.ops.backend_error import BackendError
from stereo_sashimi.ops.discretize import Discrete
from stereo_sashimi.ops.kernels import krylov

CauchySum = Callable[[Tensor, Tensor, Tensor], Tensor]

# Elements of one block of the Cauchy matrix, channels x modes x frequencies.
BLOCK_ELEMENTS = 1 << 22


def blocked_sum(
    v: Complex[Tensor, "rows h m"], a: Complex[Tensor, "h m"], w: Complex[Tensor, " frequencies"]
) -> Complex[Tensor, "rows h frequencies"]:
    """sum_n v_n/(1 - w a_n) + conj(v_n)/(1 - w conj(a_n)), a block of frequencies at a time.

    Each block is recomputed in the backward pass, so memory does not grow with channels x state x length.
    """
    per_block = max(1, BLOCK_ELEMENTS // max(1, a.numel()))
    blocks = [checkpoint(_sum, v, a, part, use_reentrant=False) for part in w.split(per_block)]
    return torch.cat(blocks, dim=-1)


def _sum(v: Tensor, a: Tensor, w: Tensor) -> Tensor:
    upper = 1 / (1 - w * a.unsqueeze(-1))
    lower = 1 / (1 - w * a.conj().unsqueeze(-1))
    return contract("rhm,hmf->rhf", v, upper) + contract("rhm,hmf->rhf", v.conj(), lower)


def kernel(
    ssm: Discrete, length: int, dtype: torch.dtype | None = None, cauchy_sum: CauchySum = blocked_sum
) -> Float[Tensor, "h length"]:
    """K_l = 2 Re(C A_bar^l B_bar) for l < length, by an FFT of the generating function.

    `dtype`: real precision of the result, None for that of `ssm`. The sums run in float64: near the unit circle
    1 - w a cancels. `cauchy_sum` is `blocked_sum`, or that of KeOps or Triton.
    """
    dtype = dtype or ssm.delta.real.dtype
    ssm = ssm.to(torch.complex128)
    c_tilde = ssm.c - krylov.row_times_power(ssm, length)
    a, b = ssm.a, ssm.b
    # Angles from exact integers in float64: powering one root would let the phase error grow with k.
    k = torch.arange(length // 2 + 1, dtype=torch.float64, device=a.device)
    w = torch.polar(torch.ones_like(k), -2 * math.pi * k / length)
    if ssm.left is None or ssm.right is None:
        spectrum = cauchy_sum((c_tilde * b).unsqueeze(0), a, w)[0]
    else:
        numerators = torch.stack([c_tilde * b, c_tilde * ssm.left, ssm.right * b, ssm.right * ssm.left])
        cb, cl, rb, rl = cauchy_sum(numerators, a, w)
        spectrum = cb + w * cl * rb / (1 - w * rl)
    return torch.fft.irfft(spectrum, n=length).to(dtype)


def one_term(device: str) -> tuple[Tensor, Tensor, Tensor]:
    """v = 1, a = 1/2, w = 1 of a sum that is 2 + 2, to try a backend with."""
    one = torch.ones(1, 1, 1, dtype=torch.complex128, device=device)
    return one, one[0] / 2, one[0, 0]


def refuse_wrong(name: str, value: Tensor) -> None:
    """Raise BackendError unless `value` is the sum of `one_term`."""
    if not torch.allclose(value.cpu(), torch.full_like(value, 4.0, device="cpu")):
        raise BackendError(f"backend={name} computes wrong sums here (got {value}); use backend=auto.")
