"""StatefulModule: what a layer, a pool or a residual block looks like from outside."""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class StatefulModule(nn.Module, ABC):
    """A causal map of sequences, called as `y, state = module(x, state)`.

    `None` in gives `None` out: a whole sequence from the start. `initial_state(batch_size)` in gives the next state
    out, for a segment of any length. State is an argument and a return value, never kept on the module.
    """

    @abstractmethod
    def initial_state(self, batch_size: int) -> Tensor | None:
        """The state before the first frame, batch first; None if the module carries nothing."""
