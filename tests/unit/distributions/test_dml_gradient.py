"""The DML's closed-form gradient against autograd through `dml.log_prob`, and what it keeps."""

import pytest
import torch

from stereo_sashimi.distributions import logistic_mixture as dml


def mixtures(n_levels, dtype=torch.float64):
    """Ordinary ones, scales far below one LSB and far above the range, means that ran away; edge codes among others."""
    torch.manual_seed(0)
    params = 3 * torch.randn(420, 30, dtype=dtype)
    params[:60, 20:] -= 12
    params[60:120, 10:20] *= 1e6
    params[120:180, 20:] = 60
    params[180:240, 20:] = -60
    codes = torch.randint(0, n_levels, (420,))
    codes[::7], codes[1::7] = 0, n_levels - 1
    return params.requires_grad_(), codes


def some_reference(n_levels):
    base = torch.randint(0, n_levels, (420,))
    return dml.Reference(base, *(3 * torch.randn(420, 10, dtype=torch.float64) for _ in range(3)))


@pytest.mark.parametrize("referred", [False, True])
@pytest.mark.parametrize("n_levels", [2, 256, 65536])
def test_it_is_the_gradient_of_the_readable_one(n_levels, referred):
    params, codes = mixtures(n_levels)
    upper = torch.randn(420, dtype=torch.float64)
    reference = some_reference(n_levels) if referred else None
    value = dml.lean_log_prob(params, codes, n_levels, reference)
    expected = dml.log_prob(params, codes, n_levels, reference)
    assert torch.equal(value, expected)
    (ours,) = torch.autograd.grad((value * upper).sum(), params)
    (autograd,) = torch.autograd.grad((expected * upper).sum(), params)
    scale = autograd.abs().amax(-1, keepdim=True)
    assert ((ours - autograd).abs() <= 1e-9 * scale + 1e-13).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_low_precision_gives_finite_gradients_of_its_own_type(dtype):
    params, codes = mixtures(65536)
    params = params.detach().to(dtype).requires_grad_()
    (grad,) = torch.autograd.grad(dml.lean_log_prob(params, codes, 65536).sum(), params)
    assert grad.dtype == dtype
    assert grad.isfinite().all()


def test_only_the_arguments_are_kept_for_the_backward_pass():
    params, codes = mixtures(256)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        dml.lean_log_prob(params, codes, 256)
    assert sum(tensor.numel() for tensor in kept) == params.numel() + codes.numel()
