"""ScalarNorm, the two-number layer norm of the original paper's configurations; torch's LayerNorm is the default."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

# The original has no epsilon and gives NaN on a channel-constant vector. This one only moves results when the
# variance over channels is below about 1e-8, where nothing was defined before.
EPSILON = 1e-12


class ScalarNorm(nn.Module):
    """y = (s / std) * (x - mean + m) with mean and population std over channels, s and m single learned scalars.

    Input and output (..., channels). The "TransposedLN" of the original S4 repository's SaShiMi configurations.
    """

    def __init__(self) -> None:
        super().__init__()
        self.m = nn.Parameter(torch.zeros(1))
        self.s = nn.Parameter(torch.ones(1))

    def forward(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """Normalise over the last axis."""
        x = x.to(self.s.dtype)  # in bfloat16 the subtraction of the mean would cancel
        variance, mean = torch.var_mean(x, dim=-1, correction=0, keepdim=True)
        return self.s * torch.rsqrt(variance + EPSILON) * (x - mean + self.m)


def make_norm(kind: str, d_model: int) -> nn.Module:
    """The norm in front of a block: `"layer"` (LayerNorm, eps 1e-5, affine) or `"scalar"`."""
    if kind == "layer":
        return nn.LayerNorm(d_model)
    if kind == "scalar":
        return ScalarNorm()
    raise ValueError(f"norm must be 'layer' or 'scalar'; got {kind!r}.")
