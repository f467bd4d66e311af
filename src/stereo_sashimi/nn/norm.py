"""ScalarNorm, the two-number layer norm of the original paper's configurations; torch's LayerNorm is the default."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

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
        y: Tensor = _ScalarNorm.apply(x, self.s, self.m)
        return y


class _ScalarNorm(torch.autograd.Function):
    """y = s n + s m r with r = 1 / std, where n = (x - mean) r is torch's layer norm: its fused kernels do the work."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, s: Tensor, m: Tensor) -> Tensor:
        width = x.shape[-1]
        y, mean, r = torch.native_layer_norm(x, [width], s.expand(width), None, EPSILON)
        ctx.save_for_backward(x, s, m, mean, r)
        return y + s * m * r

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, s, m, mean, r = ctx.saved_tensors
        width = x.shape[-1]
        # As if s were one weight a channel: the sum of their gradients is its own.
        of_x, of_weights, _ = torch.ops.aten.native_layer_norm_backward(
            grad.contiguous(), x, [width], mean, r, s.expand(width), None, [True, True, False]
        )
        sums = grad.sum(-1, keepdim=True)
        # d r / d x = -n r^2 / width
        of_x = torch.addcmul(of_x, x - mean, sums * r.pow(3) * (s * m), value=-1 / width)
        of_r = (sums * r).sum()
        return of_x, (of_weights.sum() + m * of_r).view(1), (s * of_r).view(1)


def make_norm(kind: str, d_model: int) -> nn.Module:
    """The norm in front of a block: `"layer"` (LayerNorm, eps 1e-5, affine) or `"scalar"`."""
    if kind == "layer":
        return nn.LayerNorm(d_model)
    if kind == "scalar":
        return ScalarNorm()
    raise ValueError(f"norm must be 'layer' or 'scalar'; got {kind!r}.")
