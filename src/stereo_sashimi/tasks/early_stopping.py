"""Ends training when the monitored number has stopped becoming better."""

import pytorch_lightning as pl
from pytorch_lightning import callbacks

from stereo_sashimi.tasks.checkpoints import validates_in_training


class EarlyStopping(callbacks.EarlyStopping):
    """Lightning's, of the validations that training may depend on: a run in pieces ends where the whole one does.

    - `monitor`, `mode`: what is compared, "min" or "max".
    - `patience`: validations in a row without a better number. `min_delta`: what is less than this better is none.
    """

    def __init__(self, monitor: str, mode: str = "min", patience: int = 10, min_delta: float = 0.0) -> None:
        super().__init__(
            monitor, min_delta=min_delta, patience=patience, mode=mode, check_on_train_epoch_end=False, verbose=False
        )

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count it."""
        if validates_in_training(trainer):
            super().on_validation_end(trainer, pl_module)
