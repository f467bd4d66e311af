"""NonFiniteGuard: what happens when a loss or a gradient is NaN or infinite (`train.on_nan`)."""

from collections import defaultdict
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from stereo_sashimi.data.datamodule import AudioDataModule
from stereo_sashimi.data.dataset import Batch
from stereo_sashimi.schema import check_choice
from stereo_sashimi.tasks.checkpoints import LastCheckpoint
from stereo_sashimi.tasks.lightning_internals import find

CHOICES = ("stop", "skip")
MAX_CONSECUTIVE = 100


class NonFiniteError(ValueError):
    """Training met a loss or a gradient that is not finite. The message says where, and how to go on."""


class NonFiniteGuard(Callback):
    """Keeps a loss or gradient that is not finite away from the weights and from the optimizer's moments.

    - `on_nan`: "stop" raises NonFiniteError before the step, so the last checkpoint stays a good one. "skip" leaves the
      step out, its batches included, and says so in a line; `MAX_CONSECUTIVE` such steps in a row raise all the same.

    A skipped step counts: `global_step` and the learning-rate schedule go on as if it had been made.

    A loss that is not finite makes its gradients NaN, so that every process of a distributed run sees it in the
    gradients that they share, and all of them do the same. For that the host waits for the device once an optimizer
    step, between what a CUDA graph can hold (forward and backward) and the step that would spoil the weights. The
    rest of a step waits for nothing, unless `context_len` or `carry_state` ask for it.
    """

    def __init__(self, on_nan: str = "stop") -> None:
        check_choice(on_nan, "train.on_nan", CHOICES)
        self.on_nan = on_nan
        self.skipped = self._consecutive = 0
        # Losses and clips of the batches that the next step is made of.
        self._losses: list[Tensor] = []
        self._clips: list[Tensor] = []

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Remember which clips may be the ones."""
        self._clips.append(batch.clips)

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        """Let a loss that is not finite spoil its gradients: without one look at the device."""
        value = loss.detach()
        self._losses.append(value)
        if loss.requires_grad:
            loss.register_hook(lambda grad: torch.where(value.isfinite(), grad, torch.full_like(grad, torch.nan)))

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Look at all gradients at once, before they are clipped."""
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        # The largest absolute value: a 2-norm can overflow where no gradient does.
        finite = bool(torch.nn.utils.get_total_norm(gradients, norm_type=torch.inf).isfinite())
        if finite:
            self._consecutive = 0
        else:
            self._act(trainer, optimizer)
        self._losses, self._clips = [], []

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Log how many steps were left out so far."""
        if self.on_nan == "skip":
            pl_module.log("train/skipped_steps", float(self.skipped), batch_size=1)

    def state_dict(self) -> dict[str, int]:
        """The counts, for a checkpoint."""
        return {"skipped": self.skipped, "consecutive": self._consecutive}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on counting."""
        self.skipped, self._consecutive = state_dict["skipped"], state_dict["consecutive"]

    def _act(self, trainer: pl.Trainer, optimizer: torch.optim.Optimizer) -> None:
        found = self._found(trainer)
        what = "; ".join(kind for kind, _ in found)
        clips = [clip for _, clips in found for clip in clips]
        step = trainer.global_step + 1
        if self.on_nan == "stop":
            raise NonFiniteError(self._message(trainer, f"step {step}: {what}; nothing was changed by it.", clips))
        self.skipped += 1
        self._consecutive += 1
        if self._consecutive >= MAX_CONSECUTIVE:
            many = f"step {step}: {what}; it is the {MAX_CONSECUTIVE}th step in a row that train.on_nan=skip left out."
            raise NonFiniteError(self._message(trainer, many, clips))
        # Without gradients AdamW touches neither weights nor moments.
        optimizer.zero_grad(set_to_none=True)
        if trainer.is_global_zero:
            names = ", ".join(clips[:4]) + (f" and {len(clips) - 4} more" if len(clips) > 4 else "")
            print(f"step {step} skipped: {what}; {names}", flush=True)

    def _found(self, trainer: pl.Trainer) -> list[tuple[str, list[str]]]:
        """What is not finite, and the files it may come from; over all processes."""
        bad = [i for i, loss in enumerate(self._losses) if not loss.isfinite()]
        values = ", ".join(str(float(self._losses[i])) for i in bad)
        mine = (f"the loss is {values}", _describe(trainer, [self._clips[i] for i in bad]))
        other = ("a gradient is not finite", _describe(trainer, self._clips))
        found: list[Any] = [(mine if bad else None, other)]
        if trainer.world_size > 1:
            found = [None] * trainer.world_size
            torch.distributed.all_gather_object(found, (mine if bad else None, other))
        # Where a loss is known to be bad, the batches of the other processes are not to blame.
        losses = [loss for loss, _ in found if loss is not None]
        return losses or [("a gradient is not finite", [clip for _, (_, clips) in found for clip in clips])]

    def _message(self, trainer: pl.Trainer, first: str, clips: list[str]) -> str:
        last = find(trainer, LastCheckpoint)
        lines = [first, *(f"  {clip}" for clip in clips)]
        options = "trainer.gradient_clip_val=1.0" + (" or train.on_nan=skip" if self.on_nan == "stop" else "")
        if last is not None and last.saved is not None:
            lines.append(
                f"  Go on from the last good state (step {last.saved_step}) with checkpoint={last.saved} and {options},"
            )
        elif trainer.ckpt_path is not None:
            lines.append(f"  Go on from where this run began with checkpoint={trainer.ckpt_path} and {options},")
        else:
            lines.append(f"  Nothing was saved before it. Start again with {options},")
        return "\n".join([*lines, "  or start anew with a lower optimizer.lr. Look at the audio named above."])


def _describe(trainer: pl.Trainer, batches: list[Tensor]) -> list[str]:
    """One entry a file: its path and where the clips begin in it."""
    datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
    assert isinstance(datamodule, AudioDataModule)
    places = defaultdict(list)
    for index in torch.cat(batches).tolist() if batches else ():
        path, frame = datamodule.datasets["train"].describe(index)
        places[path].append(frame)
    rate = datamodule.spec.sample_rate
    return [
        f"{path} at " + ", ".join(f"{frame / rate:.2f} s (frame {frame})" for frame in sorted(set(frames)))
        for path, frames in places.items()
    ]
