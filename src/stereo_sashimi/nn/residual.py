"""Residual: the pre-norm residual wrapper around an S4 layer or a feed-forward layer."""

from jaxtyping import Float
from torch import Tensor, nn

from stereo_sashimi.nn.module import StatefulModule
from stereo_sashimi.nn.norm import make_norm


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
