"""ScalarNorm: the formula of the original, and finite where the original is not."""

import pytest
import torch

from stereo_sashimi.nn.block import ScalarNorm, make_norm


def test_it_is_the_formula_with_population_std():
    norm = ScalarNorm().double()
    with torch.no_grad():
        norm.m.fill_(0.3)
        norm.s.fill_(-1.7)
    x = torch.randn(2, 5, 6, dtype=torch.float64)
    mean = x.mean(-1, keepdim=True)
    std = x.std(-1, correction=0, keepdim=True)
    torch.testing.assert_close(norm(x), -1.7 / std * (x - mean + 0.3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, 1.0, -3e4])
def test_channel_constant_input_has_finite_values_and_gradients(value, dtype):
    """The original gives NaN here: it divides by a standard deviation of zero."""
    norm = ScalarNorm().to(dtype)
    x = torch.full((2, 3, 8), value, dtype=dtype, requires_grad=True)
    y = norm(x)
    y.square().sum().backward()
    for tensor in (y, x.grad, norm.m.grad, norm.s.grad):
        assert tensor.isfinite().all()


def test_the_written_gradient_is_the_derivative():
    norm = ScalarNorm().double()
    x = torch.randn(3, 5, 6, dtype=torch.float64, requires_grad=True)
    s, m = (torch.tensor([value], dtype=torch.float64, requires_grad=True) for value in (-1.7, 0.3))

    def run(x, s, m):
        return torch.func.functional_call(norm, {"s": s, "m": m}, (x,))

    assert torch.autograd.gradcheck(run, (x, s, m))


def test_there_are_two_kinds():
    with pytest.raises(ValueError, match="'layer' or 'scalar'; got 'batch'"):
        make_norm("batch", 4)
