"""Signals: Ctrl-C waits while half of something is changed; SIGTERM stops several processes at the same batch."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytorch_lightning as pl

from stereo_sashimi.tasks.lightning_internals import receive_sigterm

# SIGUSR1 is SLURM's announcement of a requeue, at which Lightning saves inside the signal handler.
HELD = (signal.SIGINT, signal.SIGUSR1)


class Deferral:
    """Between `hold` and `release` signals in `HELD` wait; `release` hands the last one on.

    SIGTERM needs none of this: its handlers only set a flag that the training loop looks at between batches.
    A blocked signal mask would not do: another thread could take the signal, and python runs the handler all the same.
    """

    def __init__(self) -> None:
        self._handlers: dict[signal.Signals, Any] = {}
        self._arrived: tuple[int, FrameType | None] | None = None

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._arrived = (number, frame)

    def hold(self) -> None:
        """Let signals wait; nothing happens outside the main thread, where no handler runs, or if they wait already."""
        if self._handlers or threading.current_thread() is not threading.main_thread():
            return
        for number in HELD:
            handler = signal.getsignal(number)
            # A default action cannot be handed on; SIGUSR1 has a handler only under SLURM.
            if callable(handler):
                self._handlers[number] = handler
                signal.signal(number, self._note)

    def release(self) -> None:
        """Put the handlers back, and call the one of a signal that has arrived."""
        handlers, self._handlers = self._handlers, {}
        for number, handler in handlers.items():
            signal.signal(number, handler)
        arrived, self._arrived = self._arrived, None
        if arrived is not None:
            handlers[signal.Signals(arrived[0])](*arrived)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Run the block as a whole."""
    deferral = Deferral()
    deferral.hold()
    try:
        yield
    finally:
        deferral.release()


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
