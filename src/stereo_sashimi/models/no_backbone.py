"""NoBackbone: a model without a network, which every network has to beat: the experts and their head alone."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from stereo_sashimi.models.sashimi import SashimiState, Step


@dataclass(frozen=True)
class NoBackboneConfig:
    """Nothing to choose."""

    kind: ClassVar[str] = "none"
    stride: ClassVar[int] = 1

    def build(self, width: int, backend: str = "auto", activation_checkpointing: bool = False) -> "NoBackbone":
        """All arguments are those of `SashimiConfig.build`, and without meaning here."""
        return NoBackbone()


class NoBackbone(nn.Module):
    """No features and no state, in the shapes of a `Sashimi`."""

    width, stride, activation_checkpointing = 0, 1, False

    def schedule(self) -> tuple[Step, ...]:
        """No modules."""
        return ()

    def initial_state(self, batch_size: int) -> SashimiState:
        """The state before the first frame."""
        return SashimiState(0, ())

    def forward(
        self, x: Float[Tensor, "batch length width"], state: SashimiState | None = None
    ) -> tuple[Float[Tensor, "batch length width"], SashimiState | None]:
        """Nothing for each frame."""
        return x[..., :0], state
