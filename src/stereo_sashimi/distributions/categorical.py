"""Categorical distribution: logits over the codes -> log_prob, log_mass, entropy, rank, sample.

Its neighbour `logistic_mixture.py` has the same functions for the discretised mixture of logistics.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def at_least_float32(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Widen float16 and bfloat16 to float32: half precision cannot hold a likelihood."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def log_mass(logits: Float[Tensor, "*batch n_levels"]) -> Float[Tensor, "*batch n_levels"]:
    """Log masses of all codes, in nats; their exponentials sum to 1."""
    return torch.log_softmax(at_least_float32(logits), dim=-1)


def log_prob(logits: Float[Tensor, "*batch n_levels"], codes: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Log mass of `codes` (0 to n_levels - 1), in nats."""
    return log_mass(logits).gather(-1, codes.long().unsqueeze(-1)).squeeze(-1)


def rank(logits: Float[Tensor, "*batch n_levels"], codes: Int[Tensor, "*batch"]) -> Int[Tensor, "*batch"]:
    """Number of codes that are strictly more likely than `codes` (int64): a hit of accuracy@k has rank < k."""
    true = logits.gather(-1, codes.long().unsqueeze(-1))
    return (logits > true).sum(-1)


def entropy(logits: Float[Tensor, "*batch n_levels"]) -> Float[Tensor, "*batch"]:
    """Entropy in nats, 0 to log(n_levels). Log masses are logits too, so this serves the DML as well."""
    log_p = log_mass(logits)
    # A code of mass 0 (logit -inf) adds 0, and 0 * -inf would be NaN.
    return -(log_p.exp() * log_p.clamp(min=torch.finfo(log_p.dtype).min)).sum(-1)


def check_temperature(temperature: float, name: str = "temperature") -> None:
    """Raise ValueError unless `temperature` is finite and at least 0."""
    if not 0.0 <= temperature < float("inf"):
        raise ValueError(f"{name} must be finite and at least 0 (0: the most likely); got {temperature}.")


def sample(
    logits: Float[Tensor, "*batch n_levels"],
    *,
    uniform: Float[Tensor, "*batch"],
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
) -> Int[Tensor, "*batch"]:
    """Draw one code for each distribution by inverse CDF in float64; returns int64 codes.

    The caller brings the randomness, so the draw of one stream depends on nothing but its own numbers.

    - `uniform`: numbers in [0, 1), best in float64 (float32 has 2**24 values for 2**16 codes).
    - `temperature`: divides the logits; 0 takes the most likely code and needs no randomness.
    - `top_k`: keep the k most likely codes, at least 1; None keeps all.
    - `top_p`: keep the smallest set of most likely codes that holds this mass, in (0, 1] (nucleus sampling,
      Holtzman et al. 2020). Temperature comes first, then top_k, then top_p.

    Raises ValueError for a value outside these ranges.
    """
    check_temperature(temperature)
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be at least 1, or null to keep every code; got {top_k}.")
    if not 0.0 < top_p <= 1.0:
        raise ValueError(f"top_p must be in (0, 1], 1 keeps every code; got {top_p}.")
    if temperature == 0.0:
        return logits.argmax(-1)
    mass = torch.softmax(logits.double() / temperature, dim=-1)
    if top_k is not None or top_p < 1.0:
        mass = mass * _kept(mass, top_k, top_p)
    # The first code whose cumulative mass exceeds u; codes of mass 0 are never that.
    target = uniform.double().unsqueeze(-1).contiguous()
    return torch.searchsorted(_cumulative(mass), target, right=True).squeeze(-1)


def _cumulative(mass: Float[Tensor, "*batch n_levels"]) -> Float[Tensor, "*batch n_levels"]:
    """Running sum that ends in exactly 1, from the last code with mass on: no u < 1 lies beyond it."""
    total = mass.cumsum(-1)
    return total / total[..., -1:]


def _kept(mass: Float[Tensor, "*batch n_levels"], top_k: int | None, top_p: float) -> Float[Tensor, "*batch n_levels"]:
    """1 for the codes that top_k and top_p keep, 0 for the others; ties go to the lower code."""
    ordered, order = mass.sort(dim=-1, descending=True, stable=True)
    place = torch.arange(mass.shape[-1], device=mass.device)
    k = mass.shape[-1] if top_k is None else min(top_k, mass.shape[-1])
    inside = (place < k).to(mass.dtype)
    ordered = ordered * inside
    total = ordered.cumsum(-1)
    # A code stays while the codes before it hold less than top_p of the mass that top_k left.
    below = total - ordered < top_p * total[..., -1:]
    kept = below.to(mass.dtype) * inside
    return torch.zeros_like(mass).scatter(-1, order, kept)
