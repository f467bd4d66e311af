"""EMA: an exponential moving average of the weights, on Lightning's callback."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.trainer.states import TrainerFn

from stereo_sashimi.signals import uninterrupted
from stereo_sashimi.tasks.lightning_internals import WeightAverage


class EMA(WeightAverage):
    """Averages the weights: the first update copies them, each later one is decay * average + (1 - decay) * weights.

    Validation, samples and the `state_dict` of checkpoints have the average; training, and with `current_model_state`
    resuming, has the raw weights. After a fit the module keeps the average. Until the first update all use the weights.

    - `decay`: in [0, 1); the average looks back over about 1 / (1 - decay) updates.
    - `update_every_n_steps`: optimizer steps between updates. `update_starting_at_step`: the first of them, from 0.
    """

    def __init__(
        self, decay: float = 0.999, update_every_n_steps: int = 1, update_starting_at_step: int | None = None
    ) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"callbacks.ema.decay must be at least 0 and below 1; got {decay}.")
        if update_every_n_steps < 1 or (update_starting_at_step or 0) < 0:
            raise ValueError(
                "callbacks.ema needs update_every_n_steps >= 1 and update_starting_at_step >= 0; "
                f"got {update_every_n_steps} and {update_starting_at_step}."
            )
        # Buffers are no weights: they are copied as they are.
        super().__init__(
            use_buffers=False,
            decay=decay,
            update_every_n_steps=update_every_n_steps,
            update_starting_at_step=update_starting_at_step,
        )
        self.decay = decay
        self._applied = False

    @contextmanager
    def applied(self, pl_module: pl.LightningModule) -> Iterator[None]:
        """The module has the averaged weights inside the block."""
        self._exchange(pl_module, True)
        try:
            yield
        finally:
            self._exchange(pl_module, False)

    def _exchange(self, pl_module: pl.LightningModule, apply: bool) -> None:
        if not self.updated or self._applied == apply:
            return
        with uninterrupted():
            self.swap(pl_module)
            self._applied = apply

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validate the average."""
        self._exchange(pl_module, True)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Train on with the raw weights."""
        self._exchange(pl_module, False)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """A validation that is broken off must not leave the two exchanged for what is saved now."""
        self._exchange(pl_module, False)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Nothing yet: the last checkpoint of the run still needs the raw weights."""

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the averaged weights in the module."""
        if self.updated:
            self.copy_to(pl_module)
        self.drop_average()

    def state_dict(self) -> dict[str, Any]:
        """Lightning's state and the decay, which a resumed run has to share."""
        return super().state_dict() | {"decay": self.decay}

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Averaged weights into `state_dict`, raw ones into `current_model_state`."""
        if self.made:
            raw = checkpoint["state_dict"]
            super().on_save_checkpoint(trainer, pl_module, checkpoint)
            if not self.updated:
                checkpoint["state_dict"] = raw

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Resume both; to validate and to test the averaged weights of `state_dict` are the right ones as they are."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)
