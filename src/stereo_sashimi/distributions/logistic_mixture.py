"""Discretised mixture of logistics (DML): parameters -> log_prob, log_mass, sample.

Its neighbour `categorical.py` has the same functions for free logits, and draws the mixture component here.

The idea is that of PixelCNN++ (Salimans et al. 2017, equations 1 and 2), with cells that tile the line exactly, so
that every set of parameters is a probability over the codes:

    code y = 0 .. n-1     centre x = 2y/n - 1 in the waveform range [-1, 1), cell edges x -+ 1/n
    LSB units             position y - n/2, cell edges y - n/2 -+ 1/2 (exact in float32), mean * n/2, scale * n/2
    a, b                  (upper edge - mean) / scale, (lower edge - mean) / scale; a - b = w = 1 / scale
    inner cell            sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(-w))
    y = 0, y = n-1        sigmoid(a), sigmoid(-b): the two edge cells take the tails

The product needs no threshold: it loses no digits where the difference of the two sigmoids would cancel or underflow.
Parameters are (..., 3K) in the order logits, means, log-scales; means and log-scales in units of the waveform range.
With a `Reference` they say how the mixture differs from another one, such as that of adaptive experts.
"""

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from stereo_sashimi.distributions import categorical
from stereo_sashimi.distributions.sampler import Sampler

# Far wider than any audio needs, and narrow enough that every quotient below stays finite in float32.
LOG_SCALE_LSB = (math.log(1e-5), math.log(1e8))
MEAN_LSB = (-1e9, 1e9)


Parameters = Float[Tensor, "*batch parameters"]
Codes = Int[Tensor, "*batch"]


class Components(NamedTuple):
    """The K logistics of each mixture, (..., K): normalised log weights (nats); mean and log scale in LSB."""

    log_weight: Tensor
    mean: Tensor
    log_scale: Tensor


class Reference(NamedTuple):
    """A mixture that parameters start from: zeros mean this one. Positions count from `base`.

    - `base`: (...), a code. So float32 is exact enough for any number of levels.
    - `mean`, `log_scale`: (..., K), LSB. Means of parameters are in units of these scales.
    - `log_weight`: (..., K), nats.
    """

    base: Tensor
    mean: Tensor
    log_scale: Tensor
    log_weight: Tensor


def soft_bound(x: Float[Tensor, "..."], low: float, high: float) -> Float[Tensor, "..."]:
    """Identity within [low, high]; beyond, bends to within 1 of the bound with slope 1/(1 + distance)**2.

    The slope is continuous and falls algebraically, so it does not underflow to 0 as that of a softplus would: a
    parameter that ran away can come back.
    """
    above, below = F.relu(x - high), F.relu(low - x)
    return x.clamp(low, high) + (1 - (1 + above).reciprocal()) - (1 - (1 + below).reciprocal())


def soft_bound_slope(x: Float[Tensor, "..."], low: float, high: float) -> Float[Tensor, "..."]:
    """The derivative of `soft_bound`."""
    return (1 + F.relu(x - high) + F.relu(low - x)).square().reciprocal()


def shift_means(params: Parameters, offset: Float[Tensor, "*batch n_mixtures"]) -> Parameters:
    """Add `offset` (units of the waveform range) to the means."""
    logits, means, log_scales = _chunks(params)
    return torch.cat((logits, means + offset, log_scales), dim=-1)


def components(params: Parameters, n_levels: int, reference: Reference | None = None) -> Components:
    """The mixture in LSB, counted from code n_levels/2 or from the reference's base.

    Raises ValueError if the last axis is not a multiple of 3.
    """
    logits, mean, log_scale = _unbounded(params, n_levels, reference)
    return Components(
        torch.log_softmax(logits, dim=-1), soft_bound(mean, *MEAN_LSB), soft_bound(log_scale, *LOG_SCALE_LSB)
    )


def log_prob(
    params: Parameters, codes: Codes, n_levels: int, reference: Reference | None = None
) -> Float[Tensor, "*batch"]:
    """Log mass of `codes` (0 to n_levels - 1), in nats, finite with finite gradients for all finite parameters."""
    return _mixed(components(params, n_levels, reference), codes, n_levels, _base(n_levels, reference))


def log_mass(params: Parameters, n_levels: int, reference: Reference | None = None) -> Float[Tensor, "*batch n_levels"]:
    """Log masses of all codes, in nats; takes batch * n_levels * n_mixtures numbers of memory, a few times."""
    parts, base = components(params, n_levels, reference), _base(n_levels, reference)
    codes = torch.arange(n_levels, device=params.device)
    base = base.unsqueeze(-1) if isinstance(base, Tensor) else base
    return _mixed(Components(*(part.unsqueeze(-2) for part in parts)), codes, n_levels, base)


def sample(
    params: Parameters,
    n_levels: int,
    uniform: Float[Tensor, "*batch 2"],
    sampler: Sampler,
    reference: Reference | None = None,
) -> Codes:
    """Draw one code for each mixture by inverse CDF in float64; returns int64 codes.

    - `uniform`: two numbers in [0, 1) each: [..., 0] picks the logistic, [..., 1] its quantile.
    - `sampler`: `of_mixture` divides the mixture logits, 0 takes the most likely logistic; `of_scale` multiplies the
      scales, 0 takes the mean of the logistic.

    At temperature 1 the codes follow `log_mass` exactly: the quantile is floored to the cell that contains it.
    """
    parts = components(params.double(), n_levels, reference)
    chosen = categorical.sample(parts.log_weight, uniform[..., 0], Sampler(sampler.of_mixture)).unsqueeze(-1)
    position = parts.mean.gather(-1, chosen).squeeze(-1)
    if sampler.of_scale > 0.0:
        scale = parts.log_scale.gather(-1, chosen).squeeze(-1).exp() * sampler.of_scale
        u = uniform[..., 1].double()
        position = position + scale * (torch.log(u) - torch.log1p(-u))
    # Clipped before the conversion: u = 0 stands at minus infinity, which belongs to code 0.
    return torch.floor(position + (_base(n_levels, reference) + 0.5)).clamp(0, n_levels - 1).long()


def _chunks(params: Parameters) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, means and log-scales, (..., K) each."""
    if params.shape[-1] % 3 or params.shape[-1] == 0:
        raise ValueError(
            f"DML parameters need a last axis of 3 * n_mixtures (logits, means, log-scales); got {params.shape[-1]}."
        )
    logits, means, log_scales = params.chunk(3, dim=-1)
    return logits, means, log_scales


def log_cells(
    parts: Components, codes: Int[Tensor, "..."], n_levels: int, base: Int[Tensor, "..."] | int
) -> Float[Tensor, "..."]:
    """Log mass that each logistic, its mean counted from `base`, gives the cells of `codes`; batch axes broadcast."""
    _, mean, log_scale = parts
    code = codes.unsqueeze(-1)
    position = (codes - base).unsqueeze(-1).to(mean.dtype)
    width = torch.exp(-log_scale)
    log_below_upper = F.logsigmoid((position + 0.5 - mean) * width)
    log_above_lower = F.logsigmoid(-(position - 0.5 - mean) * width)
    inner = log_below_upper + log_above_lower + torch.log(-torch.expm1(-width))
    # All three are finite with finite gradients everywhere, so the branch not taken adds an exact 0 to them.
    return torch.where(code == 0, log_below_upper, torch.where(code == n_levels - 1, log_above_lower, inner))


def _mixed(parts: Components, codes: Tensor, n_levels: int, base: Tensor | int) -> Tensor:
    return torch.logsumexp(parts.log_weight + log_cells(parts, codes, n_levels, base), dim=-1)


def _base(n_levels: int, reference: Reference | None) -> Tensor | int:
    """The code that means count from."""
    return n_levels // 2 if reference is None else reference.base


def lean_log_prob(
    params: Parameters, codes: Codes, n_levels: int, reference: Reference | None = None
) -> Float[Tensor, "*batch"]:
    """`log_prob` for training: the same numbers, and a backward pass that keeps nothing but its arguments.

    Autograd would keep some fifteen tensors of one number a logistic; the closed form needs the parameters alone. With
    the responsibilities r_k = weight_k cell_k / sum, and a, b, s = 1/scale as above, for code y of n:

      d log_prob / d logit_k      = r_k - weight_k
      d log_prob / d mean_k       = -r_k s (sigmoid(-a) [y < n-1] - sigmoid(b) [y > 0])
      d log_prob / d log_scale_k  = r_k (b sigmoid(b) [y > 0] - a sigmoid(-a) [y < n-1] - s / (e^s - 1) [0 < y < n-1])
    """
    result: Tensor = _LogProb.apply(params, codes, n_levels, *(reference or ()))
    return result


class _LogProb(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, params: Tensor, codes: Tensor, n_levels: int, *reference: Tensor) -> Tensor:
        ctx.save_for_backward(params, codes, *reference)
        ctx.n_levels = n_levels
        return log_prob(params, codes, n_levels, Reference(*reference) if reference else None)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        params, codes, *parts = ctx.saved_tensors
        reference = Reference(*parts) if parts else None
        return _gradient(params, codes, ctx.n_levels, reference, grad), None, None, *(None for _ in parts)


def _gradient(params: Tensor, codes: Tensor, n_levels: int, reference: Reference | None, grad: Tensor) -> Tensor:
    log_weight, mean, log_scale = parts = components(params, n_levels, reference)
    base = _base(n_levels, reference)
    code = codes.unsqueeze(-1)
    has_upper, has_lower = code < n_levels - 1, code > 0
    s = torch.exp(-log_scale)
    distance = (codes - base).unsqueeze(-1).to(mean.dtype) - mean
    a, b = (distance + 0.5) * s, (distance - 0.5) * s
    responsibility = torch.softmax(log_weight + log_cells(parts, codes, n_levels, base), dim=-1)
    upper = torch.where(has_upper, torch.sigmoid(-a), 0.0)
    lower = torch.where(has_lower, torch.sigmoid(b), 0.0)
    width = torch.where(has_upper & has_lower, s / torch.expm1(s), 0.0)
    _, raw_mean, raw_log_scale = _unbounded(params, n_levels, reference)
    unit = n_levels / 2 if reference is None else reference.log_scale.exp()
    of_mean = -s * (upper - lower) * soft_bound_slope(raw_mean, *MEAN_LSB) * unit
    of_scale = (b * lower - a * upper - width) * soft_bound_slope(raw_log_scale, *LOG_SCALE_LSB)
    parts_of = (responsibility - log_weight.exp(), responsibility * of_mean, responsibility * of_scale)
    return (torch.cat(parts_of, dim=-1) * grad.unsqueeze(-1)).to(params.dtype)


def _unbounded(params: Tensor, n_levels: int, reference: Reference | None) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, and means and log-scales in LSB before `soft_bound`."""
    # Half precision cannot hold a likelihood.
    logits, means, log_scales = _chunks(params.to(torch.promote_types(params.dtype, torch.float32)))
    if reference is None:
        return logits, means * (n_levels / 2), log_scales + math.log(n_levels / 2)
    _, mean, log_scale, log_weight = reference
    return logits + log_weight, mean + means * log_scale.exp(), log_scales + log_scale
