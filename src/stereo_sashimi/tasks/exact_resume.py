"""ExactResume: checkpoints from which a run goes on bit for bit, wherever it was stopped.

A checkpoint describes the moment right behind an optimizer step: which batches were trained, whether the validation due
there has run, and the random generators. What came later (a batch cut short, gradients half accumulated, a validation
broken off, the counters of an epoch's end) is left out, and done again after resuming.
"""

import copy
import signal
import threading
from dataclasses import dataclass
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities.rank_zero import rank_zero_warn

from stereo_sashimi.data.dataset import Batch
from stereo_sashimi.signals import TRAINING_SIGNALS, Deferral
from stereo_sashimi.tasks import random_state
from stereo_sashimi.tasks.checkpoints import validates_in_training
from stereo_sashimi.tasks.lightning_internals import (
    accumulating,
    batch_counted,
    count_validation,
    fitting,
    loop_counters,
    receive_sigterm,
    validation_due,
)
from stereo_sashimi.tasks.tbptt import Carried, carry_of

KEY = "resume"


@dataclass
class Boundary:
    """The state of training behind an optimizer step.

    - `loops`: counters of Lightning's fit loop, as in a checkpoint. `data`: state of the data module.
    - `random`: generators of this process; None where a checkpoint does not have them.
    - `validation_due`: the validation that belongs here has not run to its end.
    - `carried`: what this process carries to its next batch, see `tbptt.py`; None if nothing.
    """

    loops: dict[str, Any]
    data: dict[str, Any] | None
    random: random_state.RawState | None
    validation_due: bool
    carried: Carried | None = None


class ExactResume(Callback):
    """Puts the last `Boundary` into every checkpoint of a fit, and takes it out again.

    Behind all other callbacks but those that write checkpoints: what these draw when training starts is drawn before
    the generators are set, and what they change at an optimizer step is changed before it is over.
    """

    def __init__(self) -> None:
        self._boundary: Boundary | None = None
        self._restore = False
        self._alone = False
        self._deferral = Deferral(TRAINING_SIGNALS)
        self._sigterm = CommonSigterm()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Set the generators, now that everything is built, and before the first batch."""
        self._sigterm.install(trainer)
        if not self._restore or self._boundary is None:
            return
        self._restore = False
        if self._boundary.random is not None:
            random_state.restore(self._boundary.random, pl_module.device)
        carry, carried = carry_of(pl_module), self._boundary.carried
        if carry is not None:
            carry.restore(None if carried is None else Carried.from_plain(carried.to_plain(), pl_module.device))
        # A validation that was broken off has been recognised by now; it starts over and counts from here.
        validation: Any = trainer.fit_loop.epoch_loop.val_loop.batch_progress
        validation.total.reset_on_restart()

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any) -> None:
        """From here to the end of the batch weights and counters do not belong together: Ctrl-C waits."""
        self._deferral.hold()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Note where training stands if this batch made a step."""
        if not accumulating(trainer):
            self._boundary = _boundary(trainer, pl_module)
            if not self._boundary.validation_due:
                self._sigterm.agree(trainer)
        self._deferral.release()

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The validation counts from here on: the plateau scheduler is about to see it."""
        if not validates_in_training(trainer) or self._boundary is None:
            return
        self._boundary.validation_due = False
        self._boundary.random = random_state.capture(pl_module.device)
        count_validation(trainer, self._boundary.loops, due=False)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A validation is not broken off in one process alone; behind it they may stop."""
        if fitting(trainer):
            self._sigterm.agree(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Know whether the other processes are in step; SIGTERM reaches all of them, Ctrl-C may not."""
        self._alone = isinstance(exception, KeyboardInterrupt)
        self._deferral.release()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Overlay counters and data position of the boundary; add the generators of every process."""
        boundary = self._boundary
        if trainer.state.fn != TrainerFn.FITTING or boundary is None:
            return
        checkpoint["loops"]["fit_loop"] = copy.deepcopy(boundary.loops)
        if boundary.data is not None:
            checkpoint[_data_key(trainer)] = boundary.data
        mine = None if boundary.random is None else random_state.to_plain(boundary.random)
        content = {"validation_due": boundary.validation_due, "random_states": self._of_all(trainer, mine)}
        if carry_of(pl_module) is not None:
            carried = None if boundary.carried is None else boundary.carried.to_plain()
            content["carried"] = self._of_all(trainer, carried)
        checkpoint[KEY] = content

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep what this process goes on with; Lightning itself takes over loops and data."""
        if trainer.state.fn != TrainerFn.FITTING:
            return
        saved = checkpoint.get(KEY)
        plain = _of_rank(trainer, saved, "random_states")
        if plain is None:
            rank_zero_warn(
                f"The checkpoint holds no random generators of process {trainer.global_rank} of {trainer.world_size}: "
                "dropout goes on from train.seed instead of where it was."
            )
        carried = _of_rank(trainer, saved, "carried")
        if carry_of(pl_module) is not None and (saved is None or None in saved.get("carried", [None])):
            rank_zero_warn(
                "The checkpoint does not hold the carried state of every process (train.carry_state=true): the others "
                "go on inside their tracks with the state of a track's start."
            )
        self._boundary = Boundary(
            loops=checkpoint["loops"]["fit_loop"],
            data=checkpoint.get(_data_key(trainer)),
            random=None if plain is None else random_state.from_plain(plain),
            validation_due=saved is not None and saved["validation_due"],
            carried=None if carried is None else Carried.from_plain(carried, torch.device("cpu")),
        )
        self._restore = True

    def _of_all(self, trainer: pl.Trainer, mine: Any) -> list[Any]:
        """What each process gives, in the order of ranks; None for the others where this one saves alone."""
        all_of_them: list[Any] = [None] * trainer.world_size
        if trainer.world_size > 1 and not self._alone:
            torch.distributed.all_gather_object(all_of_them, mine)
        else:
            all_of_them[trainer.global_rank] = mine
        return all_of_them


def _of_rank(trainer: pl.Trainer, saved: dict[str, Any] | None, name: str) -> Any:
    """This process's entry of what `_of_all` saved under a name; None if there is none."""
    states = [] if saved is None else saved.get(name, [])
    return states[trainer.global_rank] if trainer.global_rank < len(states) else None


def _boundary(trainer: pl.Trainer, pl_module: pl.LightningModule) -> Boundary:
    """The state at the end of a batch that made a step, as it is once Lightning has counted that batch."""
    due = validation_due(trainer)
    with batch_counted(trainer):
        loops = loop_counters(trainer, due)
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        data = None if datamodule is None else datamodule.state_dict()
    carry = carry_of(pl_module)
    # No copy: what is carried is replaced by the next batch, not changed.
    carried = None if carry is None else carry.value
    return Boundary(loops, data, random_state.capture(pl_module.device), due, carried)


def _data_key(trainer: pl.Trainer) -> str:
    return type(trainer.datamodule).__qualname__  # type: ignore[attr-defined]


class CommonSigterm:
    """SIGTERM of a run of several processes, one or all of which may get it.

    Lightning's handler talks to the other processes inside the signal handler, amid whatever these exchange just then,
    and the run hangs. Here the handler only notes the signal, and the processes agree where all of them stand alike.
    """

    def __init__(self) -> None:
        self._noted = False

    def install(self, trainer: pl.Trainer) -> None:
        """Replace Lightning's handler; it puts back what was there before it when the fit ends."""
        if trainer.world_size > 1 and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._note)

    def agree(self, trainer: pl.Trainer) -> None:
        """Have every process stop behind this batch if one of them was told to; all must call it alike."""
        if trainer.world_size > 1 and trainer.strategy.reduce_boolean_decision(self._noted, all=False):
            receive_sigterm(trainer)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._noted = True
