"""Asking a trainer for one of its callbacks."""

from typing import TypeVar

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

Kind = TypeVar("Kind", bound=Callback)


def find(trainer: pl.Trainer, kind: type[Kind]) -> Kind | None:
    """The first callback of a class, None if the trainer has none."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return next((callback for callback in callbacks if isinstance(callback, kind)), None)
