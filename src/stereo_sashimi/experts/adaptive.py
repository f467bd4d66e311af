"""The door to the experts: codes and a state in, what the experts say and the next state out."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64
from torch import Tensor

from stereo_sashimi.distributions.logistic_mixture import Reference
from stereo_sashimi.experts.plan import (
    ASKED,
    FRAMES,
    N_FEATURES,
    N_FRAME,
    N_MIXTURES,
    POSITION,
    SLACK,
    ExpertsConfig,
    plan_of,
)
from stereo_sashimi.ops.cpu.scan import for_each

State = Float64[Tensor, "batch numbers"]
# Of a channel in a frame: the base, then what the loops write. Known before the code are all but the last, the error.
N_SAID = 1 + N_FRAME
N_KNOWN = N_SAID - 1
Said = Float32[Tensor, "batch length channels n_said"]


class Experts(NamedTuple):
    """What is known of each code before it, and what it then was.

    - `reference`: a mixture of N_MIXTURES logistics, whose first ones are around the best prediction.
    - `features`: the spread, ratios of spreads, how far experts disagree, past errors; within some 20 of 0.
    - `error`: how far the code lay from the best prediction, in spreads, bent to within 4 of 0.
    """

    reference: Reference
    features: Float[Tensor, "*batch n_features"]
    error: Float[Tensor, "*batch"]


def experts_of(said: Float[Tensor, "*batch n_said"]) -> Experts:
    """The numbers of `AdaptiveExperts.predict` by name."""
    sizes = [1, N_MIXTURES, N_MIXTURES, N_MIXTURES, N_FEATURES, 1]
    base, *mixture, features, error = said.split(sizes, dim=-1)
    return Experts(Reference(base.squeeze(-1).long(), *mixture), features, error.squeeze(-1))


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
    ) -> tuple[Said, State | None]:
        """What the experts say of each frame of `codes`, having read those before it; `experts_of` names the numbers.

        - `state`: what the call for the frames before returned, or `initial_state`. None: `codes` begin a track, and
          nobody needs the state behind them.

        The result, on the CPU, does not depend, to the bit, on how a track is cut into calls, on the rows of the
        batch, on threads or on the processor. Raises ValueError for codes or a state of another shape, and for a state
        that is none.
        """
        from stereo_sashimi.experts import loops

        if codes.ndim != 3 or codes.shape[2] != self.plan.n_channels:
            raise ValueError(
                f"these experts read codes (batch, length, {self.plan.n_channels}); got shape {tuple(codes.shape)}."
            )
        after = self.initial_state(len(codes)) if state is None else self.checked(state, len(codes))
        base, frames = np.empty(codes.shape, np.int64), np.empty((*codes.shape, N_FRAME), np.float32)
        rows = list(zip(after.numpy(), codes.cpu().contiguous().numpy(), base, frames, strict=True))
        for_each(lambda *row: loops.run(self.plan, *row), rows)
        return _said(base, frames), None if state is None else after

    def outlook(self, codes: Int64[Tensor, "batch 1 earlier"], state: State) -> Said:
        """What they say of the next frame, of whose channels the first are known: of these and the channel behind."""
        from stereo_sashimi.experts import loops

        after, channels = self.checked(state, len(codes)), codes.shape[2] + 1
        base, frames = np.empty((len(codes), channels), np.int64), np.empty((len(codes), channels, N_FRAME), np.float32)
        for row in zip(after.numpy(), codes[:, 0].cpu().numpy(), base, frames, strict=True):
            loops.outlook(self.plan, *row)
        return _said(base, frames).unsqueeze(1)

    def checked(self, state: State, rows: int) -> State:
        """A copy of `state` on the CPU, to go on from. Raises ValueError for one that is none.

        The loops follow its position without a look, and it may come from a file.
        """
        if state.shape != (rows, self.plan.size):
            raise ValueError(f"this state has shape {tuple(state.shape)}; these experts need {(rows, self.plan.size)}.")
        position, frames = state[:, POSITION], state[:, FRAMES]
        whole = (position == position.floor()) & (position >= 0) & (position < SLACK) & (state[:, ASKED] == 0)
        whole &= (frames >= 0) & (frames < 2**53)
        if not bool(whole.all()):
            raise ValueError("this is no state of experts: its position lies outside of its histories.")
        return state.to("cpu", torch.float64, copy=True).contiguous()


def _said(base: np.ndarray, frames: np.ndarray) -> Tensor:
    # A code is exact in float32.
    return torch.cat([torch.from_numpy(base.astype(np.float32)).unsqueeze(-1), torch.from_numpy(frames)], dim=-1)
