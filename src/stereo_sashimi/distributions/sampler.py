"""Sampler: how a code is drawn from a head's distribution: temperatures, top_k and top_p.

The draws are in `categorical.py` and `logistic_mixture.py`.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Sampler:
    """What to draw from the model's distributions.

    - `temperature`: 0, or at least 1e-6; 1 draws from the model itself, 0 takes the most likely code.
    - `top_k`, `top_p`: restrict a categorical head to its most likely codes; top_p in (0, 1].
    - `mixture_temperature`, `scale_temperature`: of a DML head, for the choice of the logistic and for its width; each
      None: as `temperature`.

    Raises ValueError, naming the field, for any other value.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    mixture_temperature: float | None = None
    scale_temperature: float | None = None

    def __post_init__(self) -> None:
        for name in ("temperature", "mixture_temperature", "scale_temperature"):
            value = getattr(self, name)
            if value is None and name != "temperature":
                continue
            if not value >= 0:
                raise ValueError(f"{name} must be at least 0; got {value}.")
            # Dividing by less overflows; 0 is what it would tend to.
            if value != 0 and not 1e-6 <= value < float("inf"):
                raise ValueError(f"{name} must be 0, or at least 1e-6 and finite; got {value}.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must lie in (0, 1]; got {self.top_p}.")
        if self.top_k is not None and (isinstance(self.top_k, bool) or not isinstance(self.top_k, int)):
            raise ValueError(f"top_k must be an integer, or null; got {self.top_k!r}.")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, or null; got {self.top_k}.")

    @property
    def of_mixture(self) -> float:
        """The temperature of the choice between logistics."""
        return self.temperature if self.mixture_temperature is None else self.mixture_temperature

    @property
    def of_scale(self) -> float:
        """The factor of the chosen logistic's scale."""
        return self.temperature if self.scale_temperature is None else self.scale_temperature

    def restrict(self, mass: Float[Tensor, "*batch n_levels"]) -> Float[Tensor, "*batch n_levels"]:
        """Masses with 0 for the codes that are left out; they need not sum to 1 any more. Ties go to the lower code.

        top_k keeps the k most likely codes, then top_p the smallest set of those that holds this share of what is left
        (nucleus sampling, Holtzman et al. 2020).
        """
        if self.top_k is None and self.top_p == 1.0:
            return mass
        ordered, order = mass.sort(dim=-1, descending=True, stable=True)
        if self.top_k is not None and self.top_k < mass.shape[-1]:
            ordered = ordered * (torch.arange(mass.shape[-1], device=mass.device) < self.top_k)
        kept = ordered > 0
        if self.top_p < 1.0:
            total = ordered.cumsum(-1)
            # A code stays while the codes before it hold less than top_p of the mass that top_k left.
            kept = kept & (total - ordered < self.top_p * total[..., -1:])
        return mass * torch.zeros_like(mass).scatter(-1, order, kept.to(mass.dtype))
