"""Truncated backpropagation through time: training on consecutive segments with the state carried over.

Williams and Peng 1990, "An Efficient Gradient-Based Algorithm for On-Line Training of Recurrent Network Trajectories":
the state at the end of a segment, without its gradient, is the state at the start of the next. So the forward pass
sees the whole track, the backward pass one segment, and memory is that of one segment. `data/track_sampler.py` brings
segments in this order; `exact_resume.py` puts what is carried into checkpoints.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from stereo_sashimi.data.dataset import Batch
from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.models.sashimi import SashimiState


class Carried(NamedTuple):
    """What goes from one training batch to the next. Tensors are never changed in place and have no gradient.

    - `state`: behind all frames of the batch but the last. `codes`: (batch, 1, channels), that last frame.
    - `clips`: (batch,), the clips that these were. `intact`: (batch,), the state of the row is finite.
    """

    state: SashimiState
    codes: Int64[Tensor, "batch 1 channels"]
    clips: Int64[Tensor, "batch"]
    intact: Bool[Tensor, "batch"]

    def to_plain(self) -> dict[str, Any]:
        """Tensors on the CPU, numbers and None only, so that a checkpoint loads with `weights_only=True`."""
        layers = [None if layer is None else layer.cpu() for layer in self.state.layers]
        rest = {name: getattr(self, name).cpu() for name in ("codes", "clips", "intact")}
        return {"phase": self.state.phase, "layers": layers, **rest}

    @classmethod
    def from_plain(cls, plain: dict[str, Any], device: torch.device) -> "Carried":
        """The inverse of `to_plain`."""
        layers = tuple(None if layer is None else layer.to(device) for layer in plain["layers"])
        codes, clips, intact = (plain[name].to(device) for name in ("codes", "clips", "intact"))
        return cls(SashimiState(plain["phase"], layers), codes, clips, intact)


class Carry:
    """Keeps what is carried between the training batches of one process; no module, so no part of a `state_dict`.

    `value`: from the last batch; None before the first.
    """

    def __init__(self) -> None:
        self.value: Carried | None = None
        # Whether all rows of a batch went on with their tracks, with its clips and those before it.
        self._joints: list[tuple[Tensor, Tensor, Tensor]] = []

    def restore(self, value: Carried | None) -> None:
        """Go on from `value`, or from nothing."""
        self.value, self._joints = value, []

    def check(self) -> None:
        """Raise ValueError if, since the last check, a row neither began a track nor went on with its next clip.

        For where the host waits for the device anyway; no weight has to be changed before it.
        """
        joints, self._joints = self._joints, []
        if not joints or bool(torch.stack([joined for joined, _, _ in joints]).all()):
            return
        before, clips = next((before, clips) for joined, before, clips in joints if not joined)
        raise ValueError(
            f"train.carry_state=true needs batches that go on with the tracks of the batch before: clips "
            f"{before.tolist()} are followed by {clips.tolist()}.\n"
            "  Use the training loader of AudioDataModule(carry_state=True), and no option that replaces or repeats "
            "its batches (trainer.overfit_batches, trainer.use_distributed_sampler)."
        )

    def hidden(self, model: LanguageModel, batch: Batch) -> Float[Tensor, "rows length width"]:
        """Features that predict each frame of a batch from everything before it in its track, and note the state.

        Rows that begin a track begin with the initial state and the start code. So do rows whose state was not finite
        any more (a step that `train.on_nan=skip` left out), and all rows if nothing is carried.

        Raises ValueError if rows want to go on, but their number or the phase is another one; see also `check`.
        """
        n = len(batch.codes)
        state, previous = model.initial_state(n), model.start_codes(n)
        if self.value is not None and not self._ends(n, batch):
            first, before = first_of(batch), self.value.clips
            self._joints.append(((first | (batch.clips == before + 1)).all(), before, batch.clips.clone()))
            fresh = first | ~self.value.intact
            state = model.reset_rows(self.value.state, fresh)
            previous = torch.where(fresh[:, None, None], previous, self.value.codes)
        hidden, after = model.hidden_after(previous, batch.codes, state)
        # Copies: a view would keep all that it is a view of.
        after = SashimiState(after.phase, tuple(x if x is None else x.detach().clone() for x in after.layers))
        last, clips = batch.codes[:, -1:].clone(), batch.clips.clone()
        self.value = Carried(after, last, clips, model.finite_rows(after, n))
        return hidden

    def skipped(self, batch: Batch, context_len: int) -> Int64[Tensor, "batch 1"]:
        """Frames of each row that the loss skips: what goes on inside a track has its context already."""
        return (first_of(batch) * context_len).unsqueeze(-1)

    def _ends(self, n: int, batch: Batch) -> bool:
        """Whether nobody can go on from what is carried, and nobody wants to.

        A batch of nothing but short ends of tracks may leave a phase behind, another training another number of rows.
        """
        assert self.value is not None
        rows = len(self.value.clips)
        if self.value.state.phase == 0 and rows == n:
            return False
        if not bool(first_of(batch).all()):
            raise ValueError(
                f"train.carry_state=true cannot go on inside tracks: {rows} rows were carried with phase "
                f"{self.value.state.phase}, and {n} come. Segments must be multiples of the product of model.pool "
                "(dataset.sample_len), and batches equally large (loader.batch_size)."
            )
        return True


def first_of(batch: Batch) -> Bool[Tensor, "batch"]:
    """`batch.first`. Raises ValueError if the loader does not tell."""
    if batch.first is None:
        raise ValueError(
            "train.carry_state=true needs to know which rows begin a track (Batch.first). Use the training loader of "
            "AudioDataModule(carry_state=True)."
        )
    return batch.first


def carry_of(module: object) -> Carry | None:
    """The carry of a task, None if it trains without."""
    carry = getattr(module, "carry", None)
    return carry if isinstance(carry, Carry) else None


def check_segments(sample_len: int, stride: int, pad_len: int) -> None:
    """Raise ValueError if segments of `sample_len` frames cannot be joined.

    `stride`: product of model.pool; a segment has to end with a whole group of every pool, for one phase is all that a
    batch has, and a row that begins a track begins with phase 0.
    """
    if sample_len % stride:
        below, above = sample_len // stride * stride, -(-sample_len // stride) * stride
        nearest = " or ".join(str(n) for n in (below, above) if n)
        raise ValueError(
            f"train.carry_state=true needs dataset.sample_len to be a multiple of {stride}, the product of model.pool; "
            f"got {sample_len}. Set dataset.sample_len={nearest}, or train.carry_state=false."
        )
    if pad_len:
        raise ValueError(
            f"train.carry_state=true needs dataset.pad_len=null; got {pad_len}. Set it, or train.carry_state=false."
        )
