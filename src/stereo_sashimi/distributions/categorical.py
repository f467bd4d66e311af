"""Categorical distribution: logits over the codes -> log_prob, log_mass, rank, sample.

Its neighbour `logistic_mixture.py` has the same functions for the discretised mixture of logistics.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stereo_sashimi.distributions.sampler import Sampler


def log_mass(logits: Float[Tensor, "*batch n_levels"]) -> Float[Tensor, "*batch n_levels"]:
    """Log masses of all codes, in nats; their exponentials sum to 1."""
    # Half precision cannot hold a likelihood.
    return torch.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=-1)


def log_prob(logits: Float[Tensor, "*batch n_levels"], codes: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Log mass of `codes` (0 to n_levels - 1), in nats."""
    return log_mass(logits).gather(-1, codes.long().unsqueeze(-1)).squeeze(-1)


def rank(logits: Float[Tensor, "*batch n_levels"], codes: Int[Tensor, "*batch"]) -> Int[Tensor, "*batch"]:
    """Number of codes that are strictly more likely than `codes` (int64): a hit of accuracy@k has rank < k."""
    true = logits.gather(-1, codes.long().unsqueeze(-1))
    return (logits > true).sum(-1)


def sample(
    logits: Float[Tensor, "*batch n_levels"], uniform: Float[Tensor, "*batch"], sampler: Sampler
) -> Int[Tensor, "*batch"]:
    """Draw one code for each distribution by inverse CDF in float64; returns int64 codes.

    The caller brings the randomness, so the draw of one stream depends on nothing but its own numbers.

    - `uniform`: numbers in [0, 1), best in float64 (float32 has 2**24 values for 2**16 codes).
    - `sampler`: its temperature divides the logits; 0 takes the most likely code and needs no randomness. Then
      `Sampler.restrict` applies top_k and top_p.
    """
    if sampler.temperature == 0.0:
        return logits.argmax(-1)
    mass = sampler.restrict(torch.softmax(logits.double() / sampler.temperature, dim=-1))
    # The first code whose cumulative mass exceeds u; codes of mass 0 are never that.
    target = uniform.double().unsqueeze(-1).contiguous()
    total = mass.cumsum(-1)
    # The quotient is exactly 1 from the last code with mass on: no u < 1 lies beyond it.
    return torch.searchsorted(total / total[..., -1:], target, right=True).squeeze(-1)
