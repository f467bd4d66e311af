"""What this package asks of Lightning's trainer, and the only place that uses private names of Lightning.

Such names may change with any release. `tests/unit/tasks/test_lightning_internals.py` fails for a minor version that is
not in `TRIED`: run the slow tests of resuming, signals and averaged weights with it, then add it here.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, EMAWeightAveraging
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher
from pytorch_lightning.trainer.states import TrainerFn

TRIED = ("2.6",)

Kind = TypeVar("Kind", bound=Callback)


def find(trainer: pl.Trainer, kind: type[Kind]) -> Kind | None:
    """The trainer's first callback of a class, or None."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return next((callback for callback in callbacks if isinstance(callback, kind)), None)


def fitting(trainer: pl.Trainer) -> bool:
    """Whether this is a part of `fit` behind the sanity check; `trainer.training` is false while a fit validates."""
    return trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking


def accumulating(trainer: pl.Trainer) -> bool:
    """Whether the current batch only adds to gradients that a later one will step with."""
    return bool(trainer.fit_loop._should_accumulate())


def validation_due(trainer: pl.Trainer) -> bool:
    """Whether the fit loop validates behind the current batch."""
    loop: Any = trainer.fit_loop
    return bool(loop.epoch_loop._should_check_val_fx(loop._data_fetcher))


def validate_inside_fit(trainer: pl.Trainer) -> None:
    """Run the fit's validation loop, as Lightning does between two batches."""
    connector: Any = trainer._logger_connector
    first_loop_iter = connector._first_loop_iter
    trainer.validating = True
    trainer.fit_loop.epoch_loop.val_loop.run()
    trainer.training = True
    connector._first_loop_iter = first_loop_iter


@contextmanager
def batch_counted(trainer: pl.Trainer) -> Iterator[None]:
    """Inside the block the current batch counts as completed; Lightning counts it behind the callbacks of its end."""
    progress: Any = trainer.fit_loop.epoch_loop.batch_progress
    progress.increment_completed()
    try:
        yield
    finally:
        progress.current.completed -= 1
        progress.total.completed -= 1


def loop_counters(trainer: pl.Trainer, due: bool) -> dict[str, Any]:
    """A copy of the fit loop's counters behind an optimizer step; `due`: a validation comes next."""
    loops: dict[str, Any] = copy.deepcopy(trainer.fit_loop.state_dict())
    # Lightning numbers logged steps behind a validation; without one nothing does so after resuming here.
    loops["epoch_loop.state_dict"]["_batches_that_stepped"] += not due
    count_validation(trainer, loops, due)
    return loops


def count_validation(trainer: pl.Trainer, loops: dict[str, Any], due: bool) -> None:
    """Count the validation in `loops` as complete, or if `due`, in its first batch, where Lightning starts one over."""
    completed = trainer.fit_loop.epoch_loop.val_loop.batch_progress.total.completed
    loops["epoch_loop.val_loop.batch_progress"] = {
        "total": {"ready": completed + due, "started": completed + due, "processed": completed, "completed": completed},
        "current": {"ready": int(due), "started": int(due), "processed": 0, "completed": 0},
        "is_last_batch": False,
    }


def receive_sigterm(trainer: pl.Trainer) -> None:
    """Stop training behind the current batch, as Lightning does once its own handler has noted SIGTERM."""
    connector: Any = trainer._signal_connector
    connector.received_sigterm = True


def starts_this_command(trainer: pl.Trainer) -> bool:
    """Whether the trainer starts its other processes itself, with the command line of this one."""
    launcher = trainer.strategy.launcher
    return (
        isinstance(launcher, _SubprocessScriptLauncher)
        and not launcher.cluster_environment.creates_processes_externally
    )


class WeightAverage(EMAWeightAveraging):
    """Lightning's callback with its average made accessible; without any update the average is the first weights."""

    @property
    def made(self) -> bool:
        """Whether there is an average model: from `setup` of a fit to `drop_average`."""
        return self._average_model is not None

    @property
    def updated(self) -> bool:
        """Whether there was a first update."""
        return self._average_model is not None and int(self._average_model.n_averaged) > 0

    def swap(self, pl_module: pl.LightningModule) -> None:
        """Exchange the weights of the module and of the average."""
        self._swap_models(pl_module)

    def copy_to(self, pl_module: pl.LightningModule) -> None:
        """Give the module the averaged weights."""
        self._copy_average_to_current(pl_module)

    def drop_average(self) -> None:
        """Free the average model."""
        self._average_model = None
