"""The likelihoods and their gradients are finite for every finite input, in float32."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stereo_sashimi.distributions import categorical
from stereo_sashimi.distributions import logistic_mixture as dml

extreme = st.one_of(st.sampled_from([0.0, 1e4, -1e4, 3e3, -3e3, 1e-30, 1.0, -1.0]), st.floats(-1e4, 1e4, width=32))


def assert_finite(log_prob: torch.Tensor, params: torch.Tensor) -> torch.Tensor:
    assert torch.isfinite(log_prob).all()
    assert (log_prob <= 1e-6).all()
    (gradient,) = torch.autograd.grad(log_prob.sum(), params)
    assert torch.isfinite(gradient).all()
    return gradient


@pytest.mark.parametrize("n_levels", [256, 65536])
def test_dml_on_a_grid_of_extremes(n_levels):
    values = [-1e4, -700.0, -88.0, -20.0, -1.0, 0.0, 0.5, 1.0, 20.0, 88.0, 700.0, 1e4]
    pairs = torch.tensor(list(itertools.product(values, values)))
    logit = torch.zeros(len(pairs), 1)
    params = torch.cat((logit, pairs), dim=-1).requires_grad_()
    for code in (0, 1, n_levels // 2, n_levels - 2, n_levels - 1):
        codes = torch.full((len(pairs),), code)
        gradient = assert_finite(dml.log_prob(params, codes, n_levels), params)
        # However far below the bound a scale went, a code that it misses pulls it back.
        missed = (pairs[:, 0].abs() > 1.5) & (pairs[:, 1] < 0) & (pairs[:, 0] * (code - n_levels / 2 + 0.5) < 0)
        assert (gradient[missed, 2] > 0).all()
        assert (gradient[missed, 1] != 0).all()


@pytest.mark.parametrize("value", [1e30, -1e30, 3e38, -3e38])
def test_dml_at_the_end_of_float32(value):
    for position in range(6):
        params = torch.zeros(6)
        params[position] = value
        params.requires_grad_()
        for code in (0, 7, 65535):
            assert_finite(dml.log_prob(params, torch.tensor(code), 65536), params)


@given(st.lists(extreme, min_size=9, max_size=9), st.sampled_from([256, 65536]), st.floats(0, 1))
@settings(max_examples=150, deadline=None)
def test_dml_mixtures(values, n_levels, where):
    params = torch.tensor(values, requires_grad=True)
    for code in (0, n_levels - 1, int(where * (n_levels - 1))):
        assert_finite(dml.log_prob(params, torch.tensor(code), n_levels), params)


@given(st.lists(extreme, min_size=3, max_size=3), st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=1))
@settings(max_examples=30, deadline=None)
def test_dml_masses_and_offsets(values, offset):
    params, offset = torch.tensor(values, requires_grad=True), torch.tensor(offset, requires_grad=True)
    log_mass = dml.log_mass(dml.shift_means(params, offset), 256)
    assert_finite(log_mass.logsumexp(-1), params)
    assert log_mass.double().exp().sum().item() == pytest.approx(1.0, abs=1e-5)
    (gradient,) = torch.autograd.grad(dml.log_mass(dml.shift_means(params, offset), 256).sum(), offset)
    assert torch.isfinite(gradient).all()


@given(st.lists(extreme, min_size=4, max_size=8))
@settings(max_examples=50, deadline=None)
def test_categorical(values):
    logits = torch.tensor(values, requires_grad=True)
    for code in range(len(values)):
        assert_finite(categorical.log_prob(logits, torch.tensor(code)), logits)
