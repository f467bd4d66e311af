"""The discretised mixture of logistics: draws against masses, edges, shifts, bounds, known values."""

import math

import pytest
import torch

from stereo_sashimi.distributions import logistic_mixture as dml
from stereo_sashimi.distributions.sampler import Sampler


def single(mean_lsb: float, scale_lsb: float, n_levels: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Parameters of one logistic, its mean counted in LSB from code n_levels/2."""
    half = n_levels / 2
    return torch.tensor([0.0, mean_lsb / half, math.log(scale_lsb / half)], dtype=dtype)


def random_mixture(*batch: int, n_mixtures: int = 5, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    logits, means, log_scales = torch.randn(3, *batch, n_mixtures, generator=generator, dtype=torch.float64)
    return torch.cat((logits, 0.5 * means, 2 * log_scales - 3), dim=-1)


def cdf(params: torch.Tensor, codes: torch.Tensor, n_levels: int) -> torch.Tensor:
    """P(code <= codes) by the plain formula."""
    log_weight, mean, log_scale = dml.components(params, n_levels)
    edge = codes.unsqueeze(-1) - n_levels / 2 + 0.5
    inside = (log_weight.exp() * torch.sigmoid((edge - mean) * torch.exp(-log_scale))).sum(-1)
    return torch.where(codes < 0, 0.0, torch.where(codes >= n_levels - 1, 1.0, inside))


@pytest.mark.parametrize("scale_lsb", [0.02, 0.7, 30.0, 2000.0, 1e5])
@pytest.mark.parametrize("mean_lsb", [0.0, 123.4, -32768.3])
def test_every_quantile_lands_in_the_cell_that_holds_it(scale_lsb, mean_lsb):
    n_levels = 65536
    codes = torch.arange(n_levels)
    params = single(mean_lsb, scale_lsb, n_levels).expand(n_levels, -1)
    high, low = cdf(params, codes, n_levels), cdf(params, codes - 1, n_levels)
    mass = dml.log_mass(params[0], n_levels).exp()
    assert torch.allclose(high - low, mass, atol=1e-14)
    wide = high - low > 1e-11
    assert (high - low)[wide].sum() > 0.999999
    for part in (1e-3, 0.5, 1 - 1e-3):
        quantile = low + part * (high - low)
        uniform = torch.stack((torch.full_like(quantile, 0.5), quantile), dim=-1)
        drawn = dml.sample(params, n_levels, uniform, Sampler())
        assert torch.equal(drawn[wide], codes[wide])


def test_draws_from_a_mixture_follow_log_mass():
    params = random_mixture()
    # A Kronecker lattice: multiples of irrational steps fill the unit square evenly.
    steps = torch.tensor([2.0, 3.0], dtype=torch.float64).sqrt()
    uniform = (torch.arange(100000).unsqueeze(-1) * steps).frac()
    drawn = dml.sample(params.expand(len(uniform), -1), 256, uniform, Sampler())
    frequency = torch.bincount(drawn, minlength=256) / len(uniform)
    total_variation = 0.5 * (frequency - dml.log_mass(params, 256).exp()).abs().sum()
    assert total_variation < 6e-3


def test_temperature_scales_the_logistic_and_the_mixture():
    params = torch.tensor([2.0, 0.0, 0.5, -0.5, math.log(0.01), math.log(0.01)], dtype=torch.float64)
    uniform = torch.tensor([0.5, 1 / (1 + math.exp(-1))], dtype=torch.float64)
    # One scale above the mean, at code 32768 + 16384 + 0.01 * 32768 * temperature.
    for temperature in (0.25, 1.0, 2.0):
        drawn = dml.sample(params, 65536, uniform, Sampler(temperature))
        assert drawn.item() == round(49152 + 327.68 * temperature)
    picked = [
        dml.sample(params, 65536, torch.tensor([0.9, 0.5]), Sampler(t, mixture_temperature=m)).item()
        for t, m in ((1.0, None), (0.2, None), (1.0, 0.2), (0.2, 1.0))
    ]
    assert picked == [16384, 49152, 49152, 16384]


def test_temperature_zero_is_the_mean_of_the_most_likely_logistic():
    params = torch.tensor([0.1, 0.3, -0.7, 0.2500001, 5.0, 5.0])
    drawn = dml.sample(params, 256, torch.tensor([0.0, 0.0]), Sampler(0.0))
    assert drawn.item() == 160
    outside = torch.tensor([0.0, 3.0, 5.0])
    assert dml.sample(outside, 256, torch.tensor([0.5, 0.5]), Sampler(0.0)).item() == 255


def test_the_ends_of_the_uniforms_are_codes():
    params = random_mixture(3)
    ends = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    for first in ends:
        for second in ends:
            drawn = dml.sample(params, 256, torch.stack((first, second)).expand(3, 2), Sampler())
            assert ((drawn >= 0) & (drawn < 256)).all()


def test_log_prob_is_log_mass_at_the_code_and_the_sum_is_the_cdf():
    params = random_mixture(4)
    mass = dml.log_mass(params, 256)
    for code in (-3, -1, 0, 1, 128, 254, 255, 300):
        codes = torch.full((4,), code)
        assert torch.allclose(cdf(params, codes, 256), mass.exp()[:, : max(code + 1, 0)].sum(-1), atol=1e-12)
        if 0 <= code < 256:
            assert torch.allclose(dml.log_prob(params, codes, 256), mass[:, code], atol=1e-12)


def test_edge_cells_take_the_tails_and_the_centre_is_the_plain_difference():
    params = single(3.0, 20.0, 256)
    mass = dml.log_mass(params, 256).exp()
    sigmoid = lambda edge: 1 / (1 + math.exp(-(edge - 3.0) / 20.0))  # noqa: E731
    assert mass[0].item() == pytest.approx(sigmoid(-127.5), rel=1e-12)
    assert mass[255].item() == pytest.approx(1 - sigmoid(126.5), rel=1e-11)
    assert mass[128].item() == pytest.approx(sigmoid(0.5) - sigmoid(-0.5), rel=1e-12)


def test_far_cells_keep_an_exact_logarithm():
    # 1000 scales below the cell: the mass is exp(-999.5...) times (1 - exp(-1)), nothing underflows.
    log_p = dml.log_prob(single(0.0, 1.0, 65536, torch.float32), torch.tensor(32768 + 1000), 65536)
    assert log_p.item() == pytest.approx(-999.5 + math.log1p(-math.exp(-1)), rel=1e-6)


def test_soft_bound_is_the_identity_inside_and_never_flat():
    x = torch.tensor([-1e4, -10.0, -2.0, -1.0, 0.3, 3.0, 3.5, 100.0, 1e4], requires_grad=True)
    y = dml.soft_bound(x, -2.0, 3.0)
    assert torch.equal(y[2:6], x[2:6])
    assert ((y > -3.0) & (y <= 4.0)).all()
    assert (y.diff() > 0).all()
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert (slope > 0).all()
    assert torch.equal(slope[3:5], torch.ones(2))


def test_half_precision_parameters_are_widened():
    params = random_mixture(3).bfloat16()
    assert dml.log_mass(params, 256).dtype == torch.float32
    assert torch.equal(dml.log_mass(params, 256), dml.log_mass(params.float(), 256))


@pytest.mark.parametrize("width", [0, 5])
def test_parameters_come_in_threes(width):
    with pytest.raises(ValueError, match=rf"3 \* n_mixtures .*; got {width}"):
        dml.log_prob(torch.zeros(2, width), torch.zeros(2, dtype=torch.int64), 256)
