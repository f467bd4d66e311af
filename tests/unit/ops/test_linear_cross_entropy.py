"""The cross-entropy with gradients on the way, against logits, log-softmax and autograd."""

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from stereo_sashimi.distributions import categorical
from stereo_sashimi.ops import linear_cross_entropy as module
from stereo_sashimi.ops.linear_cross_entropy import linear_cross_entropy


def inputs(n_rows, width, n_codes, dtype=torch.float64, seed=0):
    torch.manual_seed(seed)
    features = torch.randn(n_rows, width, dtype=dtype, requires_grad=True)
    weight = torch.randn(n_codes, width, dtype=dtype, requires_grad=True)
    bias = torch.randn(n_codes, dtype=dtype, requires_grad=True)
    return (features, weight, bias), torch.randint(0, n_codes, (n_rows,)), torch.rand(n_rows, dtype=dtype)


def reference(trained, true, row_weight):
    logits = F.linear(*trained)
    log_prob = categorical.log_prob(logits, true)
    return -(row_weight * log_prob).sum(), log_prob, categorical.rank(logits, true)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(1, 9), st.integers(2, 50), st.integers(1, 300), st.booleans())
def test_equals_autograd_for_any_slices(n_rows, width, n_codes, at_once, with_rank):
    trained, true, row_weight = inputs(n_rows, width, n_codes)
    before, module.LOGITS_AT_ONCE = module.LOGITS_AT_ONCE, at_once
    try:
        loss, log_prob, rank = linear_cross_entropy(*trained, true, row_weight, with_rank)
    finally:
        module.LOGITS_AT_ONCE = before
    expected = reference(trained, true, row_weight)
    torch.testing.assert_close(loss, expected[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(log_prob, expected[1], rtol=1e-12, atol=1e-12)
    assert (rank is None) is not with_rank
    assert rank is None or torch.equal(rank, expected[2])
    # Scaled as a loss is by accumulation.
    ours = torch.autograd.grad(loss * 0.25, trained)
    for value, exact in zip(ours, torch.autograd.grad(expected[0] * 0.25, trained), strict=True):
        torch.testing.assert_close(value, exact, rtol=1e-10, atol=1e-12)


def test_a_mass_that_underflows_keeps_its_log_probability():
    """exp(-1000) is 0 in float32 and float64 alike."""
    logits = torch.tensor([[0.0, -1000.0, -2000.0]])
    trained = (torch.ones(1, 1), torch.zeros(3, 1), logits[0])
    _, log_prob, _ = linear_cross_entropy(*trained, torch.tensor([1]), torch.ones(1), False)
    torch.testing.assert_close(log_prob, torch.tensor([-1000.0]))


def test_float32_is_as_exact_as_autograd_at_16_bits():
    """Sums of 65,536 numbers round; autograd's do as well."""
    trained, true, row_weight = inputs(20, 8, 65536, torch.float32)
    exact = [tensor.detach().double().requires_grad_() for tensor in trained]
    expected = reference(exact, true, row_weight.double())
    ours, autograd = linear_cross_entropy(*trained, true, row_weight, True), reference(trained, true, row_weight)
    assert ours[2].dtype == torch.int64
    for position in (0, 1):
        torch.testing.assert_close(ours[position].double(), expected[position], rtol=1e-5, atol=1e-5)
    for name, tensor, wanted in zip(
        ("features", "weight", "bias"), trained, torch.autograd.grad(expected[0], exact), strict=True
    ):
        errors = [
            (torch.autograd.grad(loss, tensor, retain_graph=True)[0].double() - wanted).abs().max()
            for loss in (ours[0], autograd[0])
        ]
        assert errors[0] <= 2 * errors[1] + 1e-6 * wanted.abs().max(), name


def test_frozen_weights_get_no_gradient():
    (features, weight, bias), true, row_weight = inputs(5, 3, 7)
    loss, _, _ = linear_cross_entropy(features, weight.detach(), bias.detach(), true, row_weight, False)
    expected, _, _ = reference((features, weight.detach(), bias.detach()), true, row_weight)
    torch.testing.assert_close(
        torch.autograd.grad(loss, features)[0], torch.autograd.grad(expected, features)[0], rtol=1e-10, atol=1e-12
    )


def test_no_rows_cost_nothing():
    trained, true, row_weight = inputs(0, 3, 7)
    loss, log_prob, rank = linear_cross_entropy(*trained, true, row_weight, True)
    assert loss == 0
    assert len(log_prob) == len(rank) == 0
    assert all((grad == 0).all() for grad in torch.autograd.grad(loss, trained))
