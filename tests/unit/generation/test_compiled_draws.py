"""The compiled draws of one code are those of `distributions/`, at the ends of their ranges as well."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stereo_sashimi.distributions import categorical
from stereo_sashimi.distributions import logistic_mixture as dml
from stereo_sashimi.distributions.sampler import Sampler
from stereo_sashimi.generation.engines.compiled import draw
from stereo_sashimi.generation.engines.compiled.pack import NO_CODE
from stereo_sashimi.generation.engines.compiled.program import padded, sampling_of

UNIFORM = st.sampled_from([0.0, 2.0**-53, 0.5, 1 - 2.0**-53]) | st.floats(0, 1, exclude_max=True)
TEMPERATURE = st.sampled_from([0.0, 1e-6, 0.3, 1.0, 5.0])


def from_logits(logits: np.ndarray, uniform: float, sampler: Sampler) -> tuple[int, float]:
    vectors, masses = np.full((2, padded(len(logits))), NO_CODE, np.float32)
    vectors[: len(logits)] = logits
    return draw.categorical(vectors, masses, len(logits), uniform, sampling_of(sampler))


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 99),
    n_levels=st.sampled_from([3, 256, 1000]),
    spread=st.sampled_from([0.0, 1.0, 10.0, 300.0]),
    uniform=UNIFORM,
    temperature=TEMPERATURE,
    top_k=st.sampled_from([None, 1, 2, 5000, 10**30]),
    top_p=st.sampled_from([1.0, 0.95, 0.5, 1e-6]),
)
def test_categorical(seed, n_levels, spread, uniform, temperature, top_k, top_p):
    logits = (np.random.default_rng(seed).normal(size=n_levels) * spread).astype(np.float32)
    code, log_prob = from_logits(logits, uniform, Sampler(temperature, top_k, top_p))
    tensor = torch.from_numpy(logits)
    if temperature == 0:
        assert code == tensor.argmax()
    else:
        mass = Sampler(temperature, top_k, top_p).restrict(torch.softmax(tensor.double() / temperature, dim=-1))
        after = mass.cumsum(-1) / mass.sum()
        # Masses are float32 here: a draw next to an edge between two codes may fall on either side.
        assert mass[code] > 0, "a code that was cut off"
        assert after[code] - mass[code] / mass.sum() - 1e-6 <= uniform <= after[code] + 1e-6
    expected = categorical.log_prob(tensor.double(), torch.tensor(code)).item()
    assert abs(log_prob - expected) < 1e-5 + 1e-6 * abs(expected)


def test_the_most_likely_code_is_the_first_of_equals():
    logits = np.float32([1, 5, 5, 2])
    assert from_logits(logits, 0.99, Sampler(0.0))[0] == 1
    assert from_logits(logits, 0.99, Sampler(top_k=1))[0] == 1
    assert from_logits(logits, 0.99, Sampler(top_p=1e-9))[0] == 1


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 99),
    n_levels=st.sampled_from([256, 65536]),
    spread=st.sampled_from([0.0, 1.0, 10.0, 1e4]),
    uniforms=st.tuples(UNIFORM, UNIFORM),
    temperatures=st.tuples(TEMPERATURE, TEMPERATURE),
)
def test_mixture(seed, n_levels, spread, uniforms, temperatures):
    k = 5
    params = (np.random.default_rng(seed).normal(size=3 * k) * spread).astype(np.float32)
    sampler = Sampler(mixture_temperature=temperatures[0], scale_temperature=temperatures[1])
    code, log_prob = draw.mixture(
        params, k, n_levels / 2, n_levels / 2, n_levels, np.array(uniforms), sampling_of(sampler)
    )
    tensor = torch.from_numpy(params).double()
    expected = dml.sample(tensor, n_levels, torch.tensor(uniforms, dtype=torch.float64), sampler)
    assert code == expected
    torch.testing.assert_close(log_prob, dml.log_prob(tensor, expected, n_levels).item(), rtol=1e-9, atol=1e-9)
