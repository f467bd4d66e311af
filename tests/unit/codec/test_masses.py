"""Integer probabilities: their rule, what they are worth against the exact likelihood, and extreme parameters."""

import math

import numpy as np
import pytest
import torch
from codec_models import CASES, small
from hypothesis import given, settings
from hypothesis import strategies as st

from stereo_sashimi.codec import quantized_pmf as masses
from stereo_sashimi.codec.coding import coder_for
from stereo_sashimi.codec.quantized_pmf import CELLS, FREE
from stereo_sashimi.distributions import logistic_mixture as dml
from stereo_sashimi.generation.stream import Stream


def counts_of(values) -> np.ndarray:
    counts = np.empty(CELLS, np.float32)
    masses.integers(np.array(values, np.float64), counts)
    return counts


def check_rule(counts: np.ndarray) -> None:
    assert (counts >= 0).all()
    assert (counts == np.round(counts)).all()
    assert counts.sum(dtype=np.float64) == FREE


def logistics(params: torch.Tensor, levels: int, start: int, step: int) -> np.ndarray:
    out = np.empty(CELLS)
    masses.mixture_masses(params.float().numpy(), len(params) // 3, levels / 2, levels / 2, levels, start, step, out)
    return out


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(0, 1e6), min_size=CELLS, max_size=CELLS))
def test_any_masses_give_integers_that_sum_up(values):
    check_rule(counts_of(values))


@pytest.mark.parametrize(
    "values",
    [np.zeros(CELLS), np.full(CELLS, 1e-35), np.full(CELLS, np.nan), np.eye(CELLS)[0], np.eye(CELLS)[-1] * 1e-25],
    ids=["zero", "tiny", "nan", "first", "last"],
)
def test_no_cell_is_impossible(values):
    counts = counts_of(values)
    check_rule(counts)
    if not values.max() >= 1e-30:
        assert counts.max() - counts.min() <= 1


def test_integers_follow_the_masses():
    values = np.random.default_rng(0).exponential(size=CELLS) ** 4
    assert np.abs(counts_of(values) - values / values.sum() * FREE).max() <= 1


@pytest.mark.parametrize("x", [-600.0, -20.0, -1.0, -1e-9, 0.0, 0.3, 1.0, 11.5, 600.0])
def test_exp_without_libm(x):
    assert masses._exp(x) == pytest.approx(math.exp(x), rel=1e-14)
    if x >= 0:
        assert masses._one_minus_exp(x) == pytest.approx(-math.expm1(-x), rel=1e-12, abs=1e-300)


@pytest.mark.parametrize("log_scale", [-11.0, -8.0, -5.0, -2.0, 0.0])
@pytest.mark.parametrize("mean", [-1.2, -0.3, 0.0001, 0.9999])
def test_two_stages_are_the_mass_of_the_code(mean, log_scale):
    params = torch.tensor([0.3, -1.0, mean, mean + 0.1, log_scale, log_scale + 0.5], dtype=torch.float64)
    exact = dml.log_mass(params, 65536).exp().numpy()
    upper = logistics(params, 65536, 0, 256)
    upper /= upper.sum()
    np.testing.assert_allclose(upper, exact.reshape(256, 256).sum(1), rtol=2e-4, atol=1e-9)
    for cell in {0, 255, int(upper.argmax()), 128}:
        lower = logistics(params, 65536, cell * 256, 1)
        of_cell = exact[cell * 256 : cell * 256 + 256]
        if of_cell.sum() > 1e-9:
            np.testing.assert_allclose(lower / lower.sum(), of_cell / of_cell.sum(), rtol=2e-3, atol=1e-7)


def test_eight_bits_are_one_stage():
    params = torch.tensor([0.3, -1.0, -0.2, 0.4, -3.0, -1.5], dtype=torch.float64)
    exact = dml.log_mass(params, 256).exp().numpy()
    found = logistics(params, 256, 0, 1)
    np.testing.assert_allclose(found / found.sum(), exact, rtol=1e-4, atol=1e-9)


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=9, max_size=9),
    st.sampled_from([(256, 0, 1), (65536, 0, 256), (65536, 0, 1), (65536, 65280, 1), (65536, 12800, 1)]),
)
def test_any_parameters_give_probabilities(params, stage):
    values = logistics(torch.tensor(params), *stage)
    assert (values >= 0).all()
    check_rule(counts_of(values))


@pytest.mark.parametrize("case", CASES)
def test_code_length_is_that_of_the_likelihood(case):
    """-log2 of the integer probabilities, against the model's own log-probability, over a recording."""
    model = small(case)
    frames = 12 if "16-categorical" in case else 200
    # Drawn from the model: what it holds for impossible costs less than it says, as no integer is 0.
    (drawn,) = Stream(model, 1, "reference").generate(frames, frames_at_once=frames)
    coder, codes = coder_for(model, 1), drawn.codes
    bits = 0.0
    for ((weights, cells),) in coder.weigh([codes[0].numpy()]):
        chosen = np.take_along_axis(weights, cells[:, None], 1).astype(np.float64)
        bits -= np.log2((chosen + 1) / 2**24).sum()
    expected = -model.log_prob(codes).double().sum().item() / math.log(2)
    assert bits == pytest.approx(expected, rel=2e-3)
