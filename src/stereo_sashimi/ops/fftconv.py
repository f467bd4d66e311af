"""Causal convolution by FFT; the kernels come from `kernels/`."""

import torch
from jaxtyping import Float
from scipy.fft import next_fast_len
from torch import Tensor


def causal_convolution(
    u: Float[Tensor, "*batch h length"], kernel: Float[Tensor, "h length"]
) -> Float[Tensor, "*batch h length"]:
    """y_t = sum_{s <= t} kernel_s u_{t-s} for every channel.

    The FFT is at least 2 length - 1 long, so nothing wraps around; its size is the next one with small factors.
    """
    length = u.shape[-1]
    if length == 0:
        return torch.zeros_like(u)
    n_fft = _fft_length(length)
    spectrum = torch.fft.rfft(u, n=n_fft) * torch.fft.rfft(kernel, n=n_fft)
    return torch.fft.irfft(spectrum, n=n_fft)[..., :length]


@torch.compiler.assume_constant_result
def _fft_length(length: int) -> int:
    """The next length with small factors that holds a whole convolution; torch.compile cannot look into SciPy."""
    return int(next_fast_len(2 * length - 1, real=True))
