"""SIGTERM stops several processes at the same batch."""

import signal
import threading
from types import FrameType

import pytorch_lightning as pl

from stereo_sashimi.tasks.lightning_internals import receive_sigterm


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
