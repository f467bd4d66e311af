"""Reversible instance normalisation (RevIN): Kim et al. 2022, "Reversible Instance Normalization for Accurate
Time-Series Forecasting against Distribution Shift", section 3.1.

    eq. 1   mean = E_t[x],  variance = Var_t[x] (population)        for each instance and channel
    eq. 2   y = weight * (x - mean) / sqrt(variance + eps) + bias
    eq. 3   x = sqrt(variance + eps) * (y - bias) / weight + mean

The statistics run over all of time, so frame t of the output knows the frames after t. That suits a forecast of what
follows the input; a language model scores the input itself, so its configuration refuses both halves.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple, NoReturn

import torch
from jaxtyping import Float
from torch import Tensor, nn


class InstanceStatistics(NamedTuple):
    """What the input half took out of each instance and channel.

    - `mean`: (batch, 1, channels). `std`: the same shape, sqrt(variance + eps), above 0.
    """

    mean: Tensor
    std: Tensor


class ReversibleInstanceNorm1dInput(nn.Module):
    """Normalise each instance and channel over time (equations 1 and 2), with learned `weight` and `bias`, (d_input,).

    - `d_input`: channels, at least 1. `eps`: added to the variance, above 0; a constant channel gives `bias`.

    Raises ValueError for other values.
    """

    def __init__(self, d_input: int, eps: float = 1e-5) -> None:
        super().__init__()
        _check_eps(eps)
        if d_input < 1:
            raise ValueError(f"ReversibleInstanceNorm1dInput needs d_input of at least 1 channel; got {d_input}.")
        self.d_input, self.eps = d_input, eps
        self.weight = nn.Parameter(torch.ones(d_input))
        self.bias = nn.Parameter(torch.zeros(d_input))

    def forward(
        self, x: Float[Tensor, "batch length channels"]
    ) -> tuple[Float[Tensor, "batch length channels"], InstanceStatistics]:
        """The normalised signal, and what the output half needs to undo it. Raises ValueError for another shape."""
        if x.shape[1] < 1 or x.shape[-1] != self.d_input:
            raise ValueError(
                f"ReversibleInstanceNorm1dInput takes (batch, length, {self.d_input}) with 1 frame or more; got "
                f"{tuple(x.shape)}."
            )
        x = x.to(self.weight.dtype)  # in bfloat16 the subtraction of the mean would cancel
        variance, mean = torch.var_mean(x, dim=1, correction=0, keepdim=True)
        statistics = InstanceStatistics(mean, torch.sqrt(variance + self.eps))
        return self.weight * (x - mean) / statistics.std + self.bias, statistics


class ReversibleInstanceNorm1dOutput(nn.Module):
    """Give a signal the level and scale of the input back (equation 3).

    - `norm_input`: the input half, whose `weight` and `bias` are shared. A weight of 0 cannot be undone.
    """

    def __init__(self, norm_input: ReversibleInstanceNorm1dInput) -> None:
        super().__init__()
        self.weight, self.bias = norm_input.weight, norm_input.bias

    def forward(
        self, y: Float[Tensor, "batch length channels"], statistics: InstanceStatistics
    ) -> Float[Tensor, "batch length channels"]:
        """`statistics` are those that the input half returned for the same batch; the length may be another."""
        return (y.to(self.weight.dtype) - self.bias) / self.weight * statistics.std + statistics.mean


@dataclass(frozen=True)
class ReversibleNormInputConfig:
    """`encoder=revnorm`; `eps` as in ReversibleInstanceNorm1dInput. No language model can be built with it."""

    kind: ClassVar[str] = "revnorm"
    # What a language model asks of an encoder before it builds one.
    separate: ClassVar[bool] = False
    eps: float = 1e-5

    def __post_init__(self) -> None:
        _check_eps(self.eps)

    def build(self, *sizes: int) -> NoReturn:
        """Raise ValueError with the reason."""
        _refuse("encoder", "embedding")


@dataclass(frozen=True)
class ReversibleNormOutputConfig:
    """`decoder=revnorm`, the other half of `encoder=revnorm`. No language model can be built with it."""

    kind: ClassVar[str] = "revnorm"
    # What a language model asks of a decoder before it builds one.
    coupling: ClassVar[str] = "independent"

    def build(self, *sizes: int) -> NoReturn:
        """Raise ValueError with the reason."""
        _refuse("decoder", "categorical or decoder=dml")


def _refuse(key: str, instead: str) -> NoReturn:
    raise ValueError(
        f"{key}=revnorm cannot be part of a language model: its mean and variance are taken over the whole clip, so "
        f"every position sees the future and no likelihood can be computed.\n  Use {key}={instead}."
    )


def _check_eps(eps: float) -> None:
    if not eps > 0:
        raise ValueError(f"revnorm needs eps above 0, or a constant channel is divided by 0; got {eps}.")
