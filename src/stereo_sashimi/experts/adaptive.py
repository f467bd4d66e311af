"""The door to the experts: codes and a state in, what the experts say and the next state out."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from stereo_sashimi.distributions.logistic_mixture import Reference
from stereo_sashimi.experts.plan import N_FEATURES, N_FRAME, N_MIXTURES, ExpertsConfig, plan_of
from stereo_sashimi.ops.cpu.scan import for_each

State = Float64[Tensor, "batch numbers"]


class Experts(NamedTuple):
    """What is known of each code before it, and what it then was.

    - `reference`: a mixture of N_MIXTURES logistics, whose first ones are around the best prediction.
    - `features`: the spread, ratios of spreads, how far experts disagree, past errors; within some 20 of 0.
    - `error`: how far the code lay from the best prediction, in spreads, bent to within 4 of 0.
    """

    reference: Reference
    features: Float[Tensor, "batch length channels n_features"]
    error: Float[Tensor, "batch length channels"]


class AdaptiveExperts:
    """A bank of experts for each channel, on the CPU; see `reference_experts.py` for what it computes.

    Args:
        config: Its sizes.
        n_channels: Channels of the codes, coded in order.
        n_levels: Of the codes, which are linear PCM.
        coupled: A channel reads the codes of those before it in the same frame.
    """

    def __init__(self, config: ExpertsConfig, n_channels: int, n_levels: int, coupled: bool = True) -> None:
        self.config = config
        self.plan = plan_of(config, n_channels, n_levels, coupled)

    def initial_state(self, batch_size: int) -> State:
        """The state before the first frame of a track."""
        from stereo_sashimi.experts import loops

        state = torch.empty(batch_size, self.plan.size, dtype=torch.float64)
        for row in state.numpy():
            loops.start(self.plan, row)
        return state

    def predict(
        self, codes: Int64[Tensor, "batch length channels"], state: State | None = None
    ) -> tuple[Experts, State | None]:
        """What the experts say of each frame of `codes`, having read those before it.

        - `state`: what the call for the frames before returned, or `initial_state`. None: `codes` begin a track, and
          nobody needs the state behind them.

        The result does not depend, to the bit, on how a track is cut into calls, on the rows of the batch, on threads
        or on the processor.
        """
        from stereo_sashimi.experts import loops

        if codes.ndim != 3 or codes.shape[2] != self.plan.n_channels:
            raise ValueError(
                f"these experts read codes (batch, length, {self.plan.n_channels}); got shape {tuple(codes.shape)}."
            )
        after = self.initial_state(len(codes)) if state is None else state.clone()
        base, frames = np.empty(codes.shape, np.int64), np.empty((*codes.shape, N_FRAME), np.float32)
        rows = list(zip(after.numpy(), codes.cpu().contiguous().numpy(), base, frames, strict=True))
        for_each(lambda *row: loops.run(self.plan, *row), rows)
        return experts_of(torch.from_numpy(base), torch.from_numpy(frames)), None if state is None else after


def experts_of(
    base: Int64[Tensor, "batch length channels"], frames: Float[Tensor, "batch length channels numbers"]
) -> Experts:
    """The numbers of frames, as the loops write them, by name."""
    *mixture, features, error = frames.split([N_MIXTURES, N_MIXTURES, N_MIXTURES, N_FEATURES, 1], dim=-1)
    return Experts(Reference(base, *mixture), features, error.squeeze(-1))
