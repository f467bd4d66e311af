"""`dml.log_prob` for training: the same numbers, and a backward pass that keeps nothing but its arguments.

Autograd would keep some fifteen tensors of one number a logistic; the closed form needs the parameters alone. With the
responsibilities r_k = weight_k cell_k / sum, and a, b, s = 1/scale as in `logistic_mixture.py`, for code y of n:

  d log_prob / d logit_k      = r_k - weight_k
  d log_prob / d mean_k       = -r_k s (sigmoid(-a) [y < n-1] - sigmoid(b) [y > 0])
  d log_prob / d log_scale_k  = r_k (b sigmoid(b) [y > 0] - a sigmoid(-a) [y < n-1] - s / (e^s - 1) [0 < y < n-1])
"""

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from stereo_sashimi.distributions import logistic_mixture as dml
from stereo_sashimi.distributions.categorical import at_least_float32


def log_prob(
    params: Float[Tensor, "*batch parameters"], codes: Int[Tensor, "*batch"], n_levels: int
) -> Float[Tensor, "*batch"]:
    """Log mass of `codes` (0 to n_levels - 1), in nats, as `dml.log_prob`."""
    result: Tensor = _LogProb.apply(params, codes, n_levels)
    return result


class _LogProb(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, params: Tensor, codes: Tensor, n_levels: int) -> Tensor:
        ctx.save_for_backward(params, codes)
        ctx.n_levels = n_levels
        return dml.log_prob(params, codes, n_levels)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        params, codes = ctx.saved_tensors
        return _gradient(params, codes, ctx.n_levels, grad), None, None


def _gradient(params: Tensor, codes: Tensor, n_levels: int, grad: Tensor) -> Tensor:
    log_weight, mean, log_scale = parts = dml.components(params, n_levels)
    code = codes.unsqueeze(-1)
    has_upper, has_lower = code < n_levels - 1, code > 0
    s = torch.exp(-log_scale)
    distance = code.to(mean.dtype) - n_levels / 2 - mean
    a, b = (distance + 0.5) * s, (distance - 0.5) * s
    responsibility = torch.softmax(log_weight + dml.log_cells(parts, codes, n_levels), dim=-1)
    upper = torch.where(has_upper, torch.sigmoid(-a), 0.0)
    lower = torch.where(has_lower, torch.sigmoid(b), 0.0)
    width = torch.where(has_upper & has_lower, s / torch.expm1(s), 0.0)
    raw_mean, raw_log_scale = _unbounded(params, n_levels)
    of_mean = -s * (upper - lower) * dml.soft_bound_slope(raw_mean, *dml.MEAN_LSB) * (n_levels / 2)
    of_scale = (b * lower - a * upper - width) * dml.soft_bound_slope(raw_log_scale, *dml.LOG_SCALE_LSB)
    parts_of = (responsibility - log_weight.exp(), responsibility * of_mean, responsibility * of_scale)
    return (torch.cat(parts_of, dim=-1) * grad.unsqueeze(-1)).to(params.dtype)


def _unbounded(params: Tensor, n_levels: int) -> tuple[Tensor, Tensor]:
    """Means and log-scales in LSB before `soft_bound`."""
    _, means, log_scales = at_least_float32(params).chunk(3, dim=-1)
    return means * (n_levels / 2), log_scales + math.log(n_levels / 2)
