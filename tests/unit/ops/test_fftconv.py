"""The FFT convolution against a loop: every length, nothing wraps around, gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.fft import next_fast_len

from stereo_sashimi.ops.fftconv import _fft_length, causal_convolution


def by_loop(u: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    y = torch.zeros_like(u)
    for t in range(u.shape[-1]):
        for s in range(t + 1):
            y[..., t] += kernel[..., s] * u[..., t - s]
    return y


@given(length=st.integers(1, 33), batch=st.integers(1, 3), seed=st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_it_is_the_causal_sum(length, batch, seed):
    torch.manual_seed(seed)
    u, kernel = torch.randn(batch, 2, length, dtype=torch.float64), torch.randn(2, length, dtype=torch.float64)
    torch.testing.assert_close(causal_convolution(u, kernel), by_loop(u, kernel), rtol=0, atol=1e-11)


@given(length=st.integers(1, 2**29))
def test_lengths_are_those_that_scipy_takes(length):
    assert _fft_length(length) == next_fast_len(2 * length - 1, real=True)


def test_no_frames_in_no_frames_out():
    assert causal_convolution(torch.zeros(3, 2, 0), torch.zeros(2, 0)).shape == (3, 2, 0)


def test_leading_axes_are_free():
    u, kernel = torch.randn(2, 3, 4, 9), torch.randn(4, 9)
    together = causal_convolution(u, kernel)
    for i in range(2):
        torch.testing.assert_close(together[i], causal_convolution(u[i], kernel))


@pytest.mark.parametrize("length", [1, 2, 7])
def test_gradients(length):
    u = torch.randn(2, 2, length, dtype=torch.float64, requires_grad=True)
    kernel = torch.randn(2, length, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(causal_convolution, (u, kernel))
