"""Law 4, every likelihood is a probability: for each head, bit depth, coupling, number of channels and scale."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stereo_sashimi.nn.heads.head import COUPLINGS, CategoricalHeadConfig, DMLHeadConfig, Head

WIDTH = 6
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-9}
pytestmark = [
    pytest.mark.parametrize("n_channels", [1, 2]),
    pytest.mark.parametrize("coupling", COUPLINGS),
    pytest.mark.parametrize("bits", [8, 16]),
]


def check_masses(head: Head, hidden: torch.Tensor, codes: torch.Tensor) -> None:
    """Masses sum to 1 in float32 and float64, and log_prob is the log mass of the code."""
    for dtype, tolerance in TOLERANCE.items():
        head.to(dtype)
        with torch.no_grad():
            log_prob = head.score(hidden.to(dtype), codes).log_prob
            for channel in range(codes.shape[-1]):
                log_mass = head.log_mass(hidden.to(dtype), codes[..., :channel], channel)
                assert log_mass.dtype == dtype
                total = log_mass.double().exp().sum(-1)
                assert (total - 1).abs().max().item() < tolerance
                at_code = log_mass.gather(-1, codes[..., channel : channel + 1]).squeeze(-1)
                assert torch.allclose(log_prob[..., channel], at_code, rtol=1e-6, atol=tolerance)


def inputs(seed: int, gain: float, n_channels: int, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    length = 6 if bits == 8 else 1
    generator = torch.Generator().manual_seed(seed)
    hidden = gain * torch.randn(1, length, WIDTH, generator=generator)
    codes = torch.randint(2**bits, (1, length, n_channels), generator=generator)
    codes[0, 0] = (0, 2**bits - 1, 2 ** (bits - 1))[seed % 3]
    return hidden, codes


@given(seed=st.integers(0, 2**32), gain=st.floats(0, 100))
@settings(max_examples=4, deadline=None)
def test_categorical_masses_sum_to_one(bits, coupling, n_channels, seed, gain):
    torch.manual_seed(seed)
    head = CategoricalHeadConfig(coupling).build(WIDTH, n_channels, 2**bits)
    check_masses(head, *inputs(seed, gain, n_channels, bits))


@given(
    seed=st.integers(0, 2**32),
    gain=st.floats(0, 10),
    log10_scale=st.floats(-3, 6),
    mean=st.floats(-2, 2),
    n_mixtures=st.integers(1, 4),
)
@settings(max_examples=10, deadline=None)
def test_dml_masses_sum_to_one_at_every_scale(bits, coupling, n_channels, seed, gain, log10_scale, mean, n_mixtures):
    torch.manual_seed(seed)
    head = DMLHeadConfig(coupling, n_mixtures).build(WIDTH, n_channels, 2**bits)
    with torch.no_grad():
        for parameter in head.couplers.parameters():
            parameter.normal_()
        for linear in head.channels:
            logits, means, log_scales = linear.bias.chunk(3)
            logits.normal_()
            means.add_(mean)
            # LSB to units of the waveform range; the mixtures lie within a factor of 3 of each other.
            log_scales.copy_(math.log(10**log10_scale / 2 ** (bits - 1)) + torch.rand(n_mixtures))
    check_masses(head, *inputs(seed, gain, n_channels, bits))
