"""What surrounds a layer in SaShiMi: the pre-norm residual, its norms, and the feed-forward layer beside S4."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from stereo_sashimi.nn.module import StatefulModule

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


class Residual(StatefulModule):
    """x + dropout(layer(norm(x))), with the layer's state passed through.

    - `layer`: a module called as `y, state = layer(x, state)`.
    - `norm`: "layer" or "scalar". `dropout`: on the branch (`dropres` of the original), in [0, 1).
    """

    def __init__(self, layer: StatefulModule, d_model: int, norm: str = "layer", dropout: float = 0.0) -> None:
        super().__init__()
        self.norm = make_norm(norm, d_model)
        self.layer = layer
        self.dropout = nn.Dropout(dropout)

    def initial_state(self, batch_size: int) -> Tensor | None:
        """The wrapped layer's initial state."""
        return self.layer.initial_state(batch_size)

    def forward(
        self, x: Float[Tensor, "batch length d_model"], state: Tensor | None = None
    ) -> tuple[Float[Tensor, "batch length d_model"], Tensor | None]:
        """Add the layer's output to its input. No frames in, no frames out, and the state stays as it is."""
        if x.shape[1] == 0:
            return x, state
        y, state = self.layer(self.norm(x), state)
        return x + self.dropout(y), state


class FeedForward(StatefulModule):
    """Linear (width -> expand * width), GELU, dropout, linear back. It has no state.

    - `d_model`: width. `expand`: at least 1. `dropout`: probability in [0, 1).
    """

    def __init__(self, d_model: int, expand: int = 2, dropout: float = 0.0) -> None:
        super().__init__()
        self.input = nn.Linear(d_model, expand * d_model)
        self.activation = nn.GELU()
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(expand * d_model, d_model)

    def initial_state(self, batch_size: int) -> None:
        """Nothing to carry."""
        return None

    def forward(
        self, x: Float[Tensor, "batch length d_model"], state: None = None
    ) -> tuple[Float[Tensor, "batch length d_model"], None]:
        """Apply to every frame on its own."""
        return self.output(self.dropout(self.activation(self.input(x)))), None
