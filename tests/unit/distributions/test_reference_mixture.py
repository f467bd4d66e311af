"""The DML with a reference that its parameters start from: the mixture that it is, a probability, drawn exactly."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stereo_sashimi.distributions import logistic_mixture as dml
from stereo_sashimi.distributions.sampler import Sampler

LEVELS = st.sampled_from([256, 65536])


def mixture(n_levels: int, seed: int, log10_scale: float = 1.0, n_mixtures: int = 4) -> dml.Reference:
    generator = torch.Generator().manual_seed(seed)
    mean, log_scale, logits = torch.randn(3, 3, n_mixtures, generator=generator, dtype=torch.float64)
    base = torch.tensor([0, n_levels - 1, int(torch.randint(n_levels, (), generator=generator))])
    return dml.Reference(base, 20 * mean, log_scale + 2.3 * log10_scale, torch.log_softmax(logits, -1))


@given(n_levels=LEVELS, seed=st.integers(0, 2**32))
@settings(max_examples=10, deadline=None)
def test_zeros_are_the_reference_itself(n_levels, seed):
    reference = mixture(n_levels, seed)
    half = n_levels / 2
    mean = (reference.base.unsqueeze(-1) - half + reference.mean) / half
    plain = torch.cat((reference.log_weight, mean, reference.log_scale - torch.tensor(half).double().log()), -1)
    zeros, codes = torch.zeros(3, 12, dtype=torch.float64), torch.tensor([0, n_levels - 1, n_levels // 3])
    expected = dml.log_prob(plain, codes, n_levels)
    assert torch.allclose(dml.log_prob(zeros, codes, n_levels, reference), expected, atol=1e-9)
    uniform = torch.rand(3, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    drawn = dml.sample(zeros, n_levels, uniform, Sampler(), reference)
    assert (drawn - dml.sample(plain, n_levels, uniform, Sampler())).abs().max() <= 1


@given(n_levels=LEVELS, seed=st.integers(0, 2**32), log10_scale=st.floats(-3, 6), gain=st.floats(0, 20))
@settings(max_examples=20, deadline=None)
def test_masses_sum_to_one_from_any_reference(n_levels, seed, log10_scale, gain):
    """And the mass of a code is what `log_prob` gives."""
    reference = mixture(n_levels, seed, log10_scale)
    params = gain * torch.randn(3, 12, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    codes = reference.base
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-5)):
        given = dml.Reference(reference.base, *(part.to(dtype) for part in reference[1:]))
        log_mass = dml.log_mass(params.to(dtype), n_levels, given)
        assert (log_mass.double().exp().sum(-1) - 1).abs().max() < tolerance
        at_code = log_mass.gather(-1, codes.unsqueeze(-1)).squeeze(-1)
        assert torch.allclose(dml.log_prob(params.to(dtype), codes, n_levels, given), at_code, atol=tolerance)


def test_24_bits_lose_nothing_in_float32():
    """Positions count from the base: a scale of a third of an LSB stands out as well at 16,000,000 as at 0."""
    n_levels = 2**24
    base = torch.tensor([n_levels // 2, n_levels - 1000])
    reference = dml.Reference(base, *(torch.tensor([[value], [value]]) for value in (0.25, -1.0, 0.0)))
    for offset in (-1, 0, 1):
        low, high = dml.log_prob(torch.zeros(2, 3), base + offset, n_levels, reference)
        assert low == high
