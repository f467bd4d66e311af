"""Causal convolution by FFT; the kernels come from `kernels/`."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

# The odd numbers below 2^31 without other factors than 3 and 5.
_ODD = [3**b * 5**c for b in range(20) for c in range(14) if 3**b * 5**c < 2**31]


def causal_convolution(
    u: Float[Tensor, "*batch h length"], kernel: Float[Tensor, "h length"]
) -> Float[Tensor, "*batch h length"]:
    """y_t = sum_{s <= t} kernel_s u_{t-s} for every channel.

    The FFT is at least 2 length - 1 long, so nothing wraps around; its size is the next one with small factors.
    """
    if u.shape[-1] == 0:
        return torch.zeros_like(u)
    y: Tensor = _CausalConvolution.apply(u, kernel)
    return y


class _CausalConvolution(torch.autograd.Function):
    """Its gradients are correlations, by FFTs of real signals as well: autograd would take complex ones.

    Spectra are twice as large as the signals, which are alive anyway: they are computed again rather than kept.
    """

    @staticmethod
    def forward(ctx: Any, u: Tensor, kernel: Tensor) -> Tensor:
        ctx.save_for_backward(u, kernel)
        n_fft = _fft_length(u.shape[-1])
        return _real(_spectrum(u, n_fft) * _spectrum(kernel, n_fft), n_fft, u.shape[-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        u, kernel = ctx.saved_tensors
        length, n_fft = u.shape[-1], _fft_length(u.shape[-1])
        upper = _spectrum(grad, n_fft)
        of_u = of_kernel = None
        if ctx.needs_input_grad[0]:
            of_u = _real(upper * _spectrum(kernel, n_fft).conj(), n_fft, length)
        if ctx.needs_input_grad[1]:
            products = upper * _spectrum(u, n_fft).conj()
            of_kernel = _real(products.flatten(0, -3).sum(0) if u.ndim > 2 else products, n_fft, length)
        return of_u, of_kernel


def _fft_length(length: int) -> int:
    """The next length with small factors that holds a whole convolution: 2^a 3^b 5^c.

    As `scipy.fft.next_fast_len`, which torch.compile cannot look into, and which makes each process start later.
    """
    least = 2 * length - 1
    return min([odd << (-(-least // odd) - 1).bit_length() for odd in _ODD])


def _spectrum(x: Tensor, n_fft: int) -> Tensor:
    return torch.fft.rfft(x, n=n_fft)


def _real(spectrum: Tensor, n_fft: int, length: int) -> Tensor:
    return torch.fft.irfft(spectrum, n=n_fft)[..., :length]
