"""Ctrl-C and SIGTERM of a command that makes audio: they end it at once, or wait while something is written."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stopped(BaseException):
    """A signal ends the command, or SIGPIPE's number says that nobody reads its output any more.

    - `number`: of the signal. `code`: the exit code, as a shell reports a process that the signal has ended.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number, self.code = number, 128 + number


class Signals:
    """What SIGINT and SIGTERM do inside `listening`: raise Stopped, or where they are held, leave their `number`."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._held = False

    def hold(self) -> None:
        """From here on signals are only noted."""
        self._held = True

    def release(self) -> None:
        """From here on they raise Stopped; one that was noted does so now."""
        self._held = False
        if self.number is not None:
            raise Stopped(self.number)

    def _arrive(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        if not self._held:
            raise Stopped(number)


@contextmanager
def listening() -> Iterator[Signals]:
    """Take SIGINT and SIGTERM for the block; nothing happens outside the main thread, where python allows no handler.

    What was ignored when the command was started, as Ctrl-C is for a job in the background, stays ignored.
    """
    signals, before = Signals(), {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, signals._arrive)
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
