"""The categorical distribution: inverse-CDF draws, filters, rank; what a `Sampler` refuses."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stereo_sashimi.distributions import categorical
from stereo_sashimi.distributions.sampler import Sampler


def grid(n: int) -> torch.Tensor:
    """Midpoints of n equal parts of [0, 1)."""
    return (torch.arange(n, dtype=torch.float64) + 0.5) / n


def frequencies(logits: torch.Tensor, n: int = 20000, **options: object) -> torch.Tensor:
    """Relative frequency of each code over an even grid of uniforms."""
    u = grid(n)
    codes = categorical.sample(logits.expand(n, -1), u, Sampler(**options))
    return torch.bincount(codes, minlength=logits.shape[-1]).double() / n


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_tempered_mass(temperature):
    logits = torch.randn(12, generator=torch.Generator().manual_seed(1))
    expected = torch.softmax(logits.double() / temperature, -1)
    assert torch.allclose(frequencies(logits, temperature=temperature), expected, atol=1e-4)


def test_temperature_zero_is_the_mode_whatever_the_uniform():
    logits = torch.randn(50, 300, generator=torch.Generator().manual_seed(2))
    for u in (0.0, 0.3, 1 - 2**-53):
        codes = categorical.sample(logits, torch.full((50,), u, dtype=torch.float64), Sampler(0.0))
        assert torch.equal(codes, logits.argmax(-1))


def test_top_k_keeps_k_codes_in_proportion():
    logits = torch.tensor([0.5, 3.0, -1.0, 2.0, 1.0])
    kept = torch.softmax(logits.double(), -1) * torch.tensor([0, 1, 0, 1, 1])
    assert torch.allclose(frequencies(logits, top_k=3), kept / kept.sum(), atol=1e-4)


def test_top_k_keeps_exactly_k_of_equal_codes():
    assert torch.equal(frequencies(torch.zeros(10), n=999, top_k=3) > 0, torch.arange(10) < 3)


def test_top_p_keeps_the_smallest_set_that_holds_the_mass():
    mass = torch.tensor([0.1, 0.4, 0.2, 0.3], dtype=torch.float64)
    kept = torch.tensor([0, 0.4, 0, 0.3], dtype=torch.float64) / 0.7
    for top_p in (0.41, 0.69):
        assert torch.allclose(frequencies(mass.log(), top_p=top_p), kept, atol=1e-4)
    assert frequencies(mass.log(), top_p=0.39)[1] == 1
    assert (frequencies(mass.log(), top_p=0.95) > 0).all()


def test_top_p_counts_the_mass_that_top_k_left():
    mass = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    # Of the two codes kept by top_k the first holds 4/7, more than 0.5.
    assert frequencies(mass.log(), top_k=2, top_p=0.5)[0] == 1


@given(st.floats(-30, 30), st.integers(2, 300), st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
def test_neutral_filters_change_no_draw(spread, n_levels, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(20, n_levels, generator=generator)
    u = torch.rand(20, generator=generator, dtype=torch.float64)
    plain = categorical.sample(logits, u, Sampler())
    assert torch.equal(plain, categorical.sample(logits, u, Sampler(top_k=n_levels, top_p=1.0)))
    # A row alone draws what it draws among others.
    alone = torch.stack([categorical.sample(logits[i], u[i], Sampler()) for i in range(20)])
    assert torch.equal(plain, alone)


def test_codes_without_mass_are_never_drawn_at_either_end():
    logits = torch.full((65536,), -torch.inf)
    logits[1000:1003] = 0.0
    u = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    assert categorical.sample(logits.expand(2, -1), u, Sampler()).tolist() == [1000, 1002]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_log_prob_and_mass_agree(dtype):
    logits = (3 * torch.randn(4, 256, generator=torch.Generator().manual_seed(3))).to(dtype)
    mass = categorical.log_mass(logits)
    assert mass.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert torch.allclose(mass.double().exp().sum(-1), torch.ones(4, dtype=torch.float64), atol=1e-6)
    assert torch.equal(categorical.log_prob(logits, torch.tensor([0, 1, 2, 255])), mass[range(4), [0, 1, 2, 255]])


def test_the_interval_of_a_code_holds_its_uniforms():
    logits = 4 * torch.randn(1000, 64, generator=torch.Generator().manual_seed(4))
    u = grid(1000)
    codes = categorical.sample(logits, u, Sampler())
    above = torch.softmax(logits.double(), dim=-1).cumsum(-1)
    above /= above[:, -1:]
    below = torch.nn.functional.pad(above, (1, -1))
    assert (below.gather(-1, codes.unsqueeze(-1)).squeeze(-1) <= u).all()
    assert (u < above.gather(-1, codes.unsqueeze(-1)).squeeze(-1)).all()


def test_log_prob_does_not_feel_a_large_common_offset():
    logits = torch.zeros(1, 65536) + 1e4
    assert categorical.log_prob(logits, torch.tensor([5])).item() == pytest.approx(-math.log(65536), abs=1e-5)


def test_rank_counts_strictly_more_likely_codes():
    logits = torch.tensor([[2.0, 1.0, 2.0, 0.0]]).expand(4, -1)
    assert categorical.rank(logits, torch.arange(4)).tolist() == [0, 2, 0, 3]


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"temperature": math.inf}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"mixture_temperature": 1e-7}, "mixture_temperature"),
        ({"top_k": True}, "top_k"),
    ],
    ids=str,
)
def test_a_sampler_refuses_wrong_fields_by_name(fields, name):
    with pytest.raises(ValueError, match=name):
        Sampler(**fields)
