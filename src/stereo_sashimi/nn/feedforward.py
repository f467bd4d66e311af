"""FeedForward, the position-wise half of each SaShiMi block pair; its S4 neighbour is `s4.py`."""

from jaxtyping import Float
from torch import Tensor, nn

from stereo_sashimi.nn.module import StatefulModule


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
