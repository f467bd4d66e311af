"""When and how checkpoints are written: the last state, the best weights, each file whole or not at all; and the
validation at the end, so that the best weights may be the last.

What is in them besides Lightning's own: `exact_resume.py` (how to go on exactly), `ema.py` (averaged weights).
"""

import os
import secrets
import shutil
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning.callbacks import Callback, Checkpoint, ModelCheckpoint
from pytorch_lightning.utilities.exceptions import SIGTERMException

from stereo_sashimi.tasks.lightning_internals import accumulating, find, fitting, validate_inside_fit

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target and renames, so that a kill or a full disk leaves the earlier file as it was.

    The last.ckpt that a new one replaces stays as previous.ckpt, unless both are of the same step; there is a whole
    last.ckpt at every moment.
    """

    def __init__(self) -> None:
        super().__init__()
        self._last_step: int | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Save to `path` in one step."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _beside(path)
        try:
            with open(temporary, "xb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            if path.name == LAST:
                step = checkpoint.get("global_step")
                if path.is_file() and (step is None or step != self._last_step):
                    _keep(path, path.with_name(PREVIOUS))
                self._last_step = step
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.parent / f".{path.name}.{secrets.token_hex(4)}.part"


def _keep(path: Path, name: Path) -> None:
    """Give a file a second name, in the place of what had that name."""
    temporary = _beside(name)
    try:
        try:
            os.link(path, temporary)
        except OSError:
            # A file system without hard links.
            shutil.copyfile(path, temporary)
        os.replace(temporary, name)
    finally:
        temporary.unlink(missing_ok=True)


class LastCheckpoint(Checkpoint):
    """Writes `<dirpath>/last.ckpt`: every `every_n_train_steps` steps, after validation, at the end, when stopped.

    Stopped is by Ctrl-C or SIGTERM; after any other error the file stays as it was. What `ExactResume` notes makes
    each of these the moment behind an optimizer step.
    """

    def __init__(self, dirpath: str, every_n_train_steps: int = 500) -> None:
        super().__init__()
        if every_n_train_steps < 1:
            raise ValueError(f"callbacks.last.every_n_train_steps must be at least 1; got {every_n_train_steps}.")
        self.path = Path(dirpath) / LAST
        self.every_n_train_steps = every_n_train_steps
        self.saved_step = 0
        self._saved = False
        # A validation that no saved checkpoint knows of.
        self._validated = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Remove what a killed run left half-written in the same folder."""
        if stage == "fit" and trainer.is_global_zero:
            for name in (LAST, PREVIOUS, "best.ckpt"):
                for leftover in self.path.parent.glob(f".{name}.*part"):
                    leftover.unlink(missing_ok=True)

    def _save(self, trainer: pl.Trainer) -> None:
        trainer.save_checkpoint(self.path)
        self.saved_step, self._validated, self._saved = trainer.global_step, False, True

    @property
    def saved(self) -> Path | None:
        """The file, if this run wrote it: one of an earlier run may lie in the same folder."""
        return self.path if self._saved else None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remember where this run starts or resumes: it has nothing to add to the checkpoint that it came from."""
        self.saved_step, self._validated, self._saved = trainer.global_step, False, False

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save at every n-th optimizer step, and at the next one after a validation between two steps."""
        due = self._validated or trainer.global_step % self.every_n_train_steps == 0
        if due and trainer.global_step != self.saved_step and not accumulating(trainer):
            self._save(trainer)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """From here on the best score and the plateau scheduler may be other ones than in the file."""
        self._validated = self._validated or fitting(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save what validation changed, unless gradients are accumulating: then it waits for their step."""
        if fitting(trainer) and not accumulating(trainer):
            self._save(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save where training ended, if that is not saved."""
        if self._validated or trainer.global_step != self.saved_step:
            self._save(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Save when the user or the system stops the run."""
        # A loader's worker that SIGTERM ended first reaches this process as an error of its own.
        stopped = isinstance(exception, (KeyboardInterrupt, SIGTERMException)) or trainer.received_sigterm
        if not stopped or not fitting(trainer):
            return
        if self._validated:
            # Stopped in between: the others have still to see that validation. They see none twice.
            for callback in trainer.checkpoint_callbacks:
                if callback is not self:
                    callback.on_validation_end(trainer, pl_module)
        if self._validated or trainer.global_step != self.saved_step:
            self._save(trainer)


class BestCheckpoint(ModelCheckpoint):
    """Writes `<dirpath>/best.ckpt` when the monitored number improves; a resumed run has to beat the run before it.

    - `monitor`, `mode`: what is compared, "min" or "max".
    """

    def __init__(self, dirpath: str, monitor: str, mode: str = "min") -> None:
        super().__init__(
            dirpath=dirpath,
            filename="best",
            monitor=monitor,
            mode=mode,
            save_top_k=1,
            save_on_train_epoch_end=False,
            enable_version_counter=False,
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the best weights and score so far over into this run's folder."""
        before = Path(state_dict["best_model_path"]) if state_dict["best_model_path"] else None
        if before is None or not before.is_file():
            return
        assert self.dirpath is not None
        here = Path(self.dirpath) / before.name
        if before.resolve() != here.resolve():
            here.parent.mkdir(parents=True, exist_ok=True)
            _keep(before, here)
        score = state_dict["best_model_score"]
        self.best_model_path = self.kth_best_model_path = str(here)
        self.best_model_score = self.kth_value = score
        self.best_k_models = {str(here): score}


class LastValidation(Callback):
    """Validates behind the last step of a fit, if nothing has.

    It may make these weights the best ones, and is no part of training: the plateau scheduler does not see it, and a
    checkpoint leaves it out, so that a run that goes on with more steps is the run in one piece.

    Attributes:
        running: Whether this validation runs now.
    """

    def __init__(self) -> None:
        self.running = False
        self._validated = -1

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note which step is validated."""
        if fitting(trainer):
            self._validated = trainer.global_step

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validate, unless someone waits for the run to stop."""
        if self._validated == trainer.global_step or not trainer.enable_validation or trainer.received_sigterm:
            return
        self.running = True
        try:
            validate_inside_fit(trainer)
        finally:
            self.running = False


def validates_in_training(trainer: pl.Trainer) -> bool:
    """Whether the validation that runs is one of a fit that training may depend on."""
    last: Any = find(trainer, LastValidation)
    return fitting(trainer) and not (last is not None and last.running)
