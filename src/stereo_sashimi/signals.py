"""Signals: `handling` them in a block; in `listening` they raise `Stopped`; in a `Deferral` they wait."""

import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn


def known(*names: str) -> tuple[signal.Signals, ...]:
    """The signals of these names that this system has; Windows has no SIGHUP, SIGUSR1 and SIGPIPE."""
    return tuple(getattr(signal, name) for name in names if hasattr(signal, name))


# SIGUSR1 is SLURM's announcement of a requeue, at which Lightning saves inside the signal handler. SIGTERM needs no
# deferral in training: its handlers only set a flag that the training loop looks at between batches.
TRAINING_SIGNALS = known("SIGINT", "SIGUSR1")
# What people and systems end a command with.
STOPPING = known("SIGINT", "SIGTERM", "SIGHUP")
# Until a signal comes again whose exception was dropped.
_AGAIN_S = 0.1
# The number of SIGPIPE, also where there is no such signal.
PIPE = 13


@contextmanager
def handling(number: signal.Signals | None, handler: Any) -> Iterator[None]:
    """Set a signal's handler for the block; outside the main thread python allows none, None is no signal."""
    if number is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


class Stopped(BaseException):
    """A signal ends the command, or SIGPIPE's number says that nobody reads its output any more.

    Attributes:
        number: The signal's.
        code: The exit code, as a shell reports a process that the signal has ended.
        name: As SIGINT.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number, self.code = number, 128 + number
        self.name = "SIGPIPE" if number == PIPE else signal.Signals(number).name

    def leave(self, message: str) -> NoReturn:
        """End the process with `code`, and a line on standard error."""
        # Behind SIGHUP there may be no terminal any more.
        with suppress(OSError):
            print(f"\n{message}", file=sys.stderr, flush=True)
        raise SystemExit(self.code) from None


class Deferral:
    """Between `hold` and `release` signals wait; `release` calls the handler of the last one.

    A blocked signal mask would not do: another thread could take the signal, and python runs the handler all the same.

    Args:
        numbers: The signals.
    """

    def __init__(self, numbers: Sequence[signal.Signals]) -> None:
        self._numbers = numbers
        self._handlers: dict[signal.Signals, Any] = {}
        self._waiting: tuple[int, FrameType | None] | None = None

    @property
    def waiting(self) -> int | None:
        """The last signal that has arrived since `hold`."""
        return None if self._waiting is None else self._waiting[0]

    def hold(self) -> None:
        """Let signals wait; nothing happens outside the main thread, where no handler runs, or if they wait already."""
        if self._handlers or threading.current_thread() is not threading.main_thread():
            return
        for number in self._numbers:
            handler = signal.getsignal(number)
            # A default action cannot be called later; what is ignored stays ignored.
            if callable(handler):
                self._handlers[number] = handler
                signal.signal(number, self._note)

    def release(self) -> None:
        """Put the handlers back, and call the one of a signal that has arrived."""
        handlers, self._handlers = self._handlers, {}
        for number, handler in handlers.items():
            signal.signal(number, handler)
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            handlers[signal.Signals(waiting[0])](*waiting)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._waiting = (number, frame)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Run the block as a whole: the signals of training wait."""
    deferral = Deferral(TRAINING_SIGNALS)
    deferral.hold()
    try:
        yield
    finally:
        deferral.release()


@contextmanager
def listening() -> Iterator[Deferral]:
    """Let SIGINT, SIGTERM and SIGHUP raise Stopped in the block, and give the deferral that holds them.

    Nothing happens outside the main thread, where python allows no handler. What was ignored when the command was
    started, as Ctrl-C is for a job in the background and SIGHUP by nohup, stays ignored.

    Python drops what is raised inside `__del__` and callbacks of C, of which LLVM has many while numba compiles: then
    the signal comes once more, and an error that it leaves behind counts as Stopped.
    """

    dropped: list[Stopped] = []
    repeats: list[threading.Timer] = []
    hook = sys.unraisablehook

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(number)

    def again(unraisable: Any) -> None:
        if not isinstance(unraisable.exc_value, Stopped):
            return hook(unraisable)
        dropped.append(unraisable.exc_value)
        repeats.append(threading.Timer(_AGAIN_S, signal.raise_signal, [dropped[-1].number]))
        repeats[-1].start()

    before = {}
    if threading.current_thread() is threading.main_thread():
        sys.unraisablehook = again
        for number in STOPPING:
            if signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, stop)
    try:
        yield Deferral(STOPPING)
    except Exception as error:
        if dropped:
            raise Stopped(dropped[0].number) from error
        raise
    finally:
        sys.unraisablehook = hook
        for repeat in repeats:
            repeat.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)
