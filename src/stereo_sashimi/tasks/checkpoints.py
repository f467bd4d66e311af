"""When and how checkpoints are written: the last state, the best weights, each file whole or not at all."""

import os
import secrets
import shutil
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint
from pytorch_lightning.trainer.states import TrainerFn


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target and renames, so that a kill or a full disk leaves the earlier file as it was."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Save to `path` in one step."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}.part"
        try:
            with open(temporary, "xb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


class LastCheckpoint(Checkpoint):
    """Writes `<dirpath>/last.ckpt` every `every_n_train_steps` steps, after validation, at the end, on Ctrl-C."""

    def __init__(self, dirpath: str, every_n_train_steps: int = 500) -> None:
        super().__init__()
        if every_n_train_steps < 1:
            raise ValueError(f"callbacks.last.every_n_train_steps must be at least 1; got {every_n_train_steps}.")
        self.path = Path(dirpath) / "last.ckpt"
        self.every_n_train_steps = every_n_train_steps
        self._first_step, self._saved_step = 0, 0

    def _save(self, trainer: pl.Trainer) -> None:
        # A run that has trained nothing has nothing to add to the checkpoint that it came from.
        if trainer.global_step > self._first_step:
            trainer.save_checkpoint(self.path)
            self._saved_step = trainer.global_step

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remember where this run starts or resumes."""
        self._first_step = self._saved_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save at every n-th optimizer step, once while gradients accumulate."""
        if trainer.global_step % self.every_n_train_steps == 0 and trainer.global_step != self._saved_step:
            self._save(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save what validation changed: the best score and the plateau scheduler."""
        if fitting(trainer):
            self._save(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save where training ended."""
        self._save(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Save when the user stops the run with Ctrl-C."""
        if isinstance(exception, KeyboardInterrupt) and fitting(trainer):
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
            temporary = here.with_name(f".{here.name}.part")
            shutil.copyfile(before, temporary)
            os.replace(temporary, here)
        score = state_dict["best_model_score"]
        self.best_model_path = self.kth_best_model_path = str(here)
        self.best_model_score = self.kth_value = score
        self.best_k_models = {str(here): score}


def fitting(trainer: pl.Trainer) -> bool:
    """Whether this is a part of `fit` behind the sanity check; `trainer.training` is false while a fit validates."""
    return trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
