"""Work in a Python process of its own: its peak of memory is its own, and when it dies the others go on."""

import multiprocessing
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple, NoReturn, TypeVar

from lightning_fabric.utilities.exceptions import MisconfigurationException

T = TypeVar("T")

# What a process may take to leave: to remove its temporary files, to end its own workers.
PATIENCE_SECONDS = 5


class MeasurementError(RuntimeError):
    """A configuration could not be measured: not enough memory, no such device or backend, a process that died."""


class Unmeasured(NamedTuple):
    """`what` was not measured, and `why`, in words."""

    what: str
    why: str


class Crash(NamedTuple):
    """A mistake of the benchmark itself, which no configuration explains."""

    traceback: str


def in_fresh_process(function: Callable[..., T], *arguments: Any, **options: Any) -> T:
    """`function(*arguments, **options)` in a new Python process, all of which must survive pickling.

    Ctrl-C ends the process with this one. Raises MeasurementError for what this machine cannot do.
    """
    spawn = multiprocessing.get_context("spawn")
    receiver, sender = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_answer, args=(sender, partial(function, *arguments, **options)))
    try:
        with _interrupts_held():
            process.start()
        sender.close()
        answer = receiver.recv()
    except EOFError as error:
        raise MeasurementError("its process was killed, most likely because memory ran out.") from error
    except BaseException:
        if process.pid is not None:
            process.terminate()
        raise
    finally:
        receiver.close()
        _end(process)
    if isinstance(answer, Crash):
        raise RuntimeError(f"in the process that measures:\n{answer.traceback}")
    return measured(answer)


def attempt(what: str, work: Callable[[], T]) -> T | Unmeasured:
    """The result, or in words why there is none: not every exception survives the way between processes."""
    try:
        return work()
    except (ValueError, OSError, RuntimeError, MemoryError, ImportError, MisconfigurationException) as error:
        return Unmeasured(what, f"{type(error).__name__}: {error}")


def measured(answer: T | Unmeasured) -> T:
    """What `attempt` returned; raises MeasurementError where that is no result."""
    if isinstance(answer, Unmeasured):
        raise MeasurementError(answer.why)
    return answer


def _answer(sender: Connection, work: Callable[[], object]) -> None:
    """What runs in the new process."""
    # Unlike the default this removes temporary files on the way out.
    signal.signal(signal.SIGTERM, _leave)
    try:
        sender.send(attempt("", work))
    except Exception:  # Whatever it is, the process that asked raises it, with this traceback.
        sender.send(Crash(traceback.format_exc()))
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _leave(*_: object) -> NoReturn:
    sys.exit(128 + signal.SIGTERM)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """A process that is started inside never sees Ctrl-C, which a terminal sends to all of them; it would print a
    traceback. This one sees it when it is outside again."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(process: BaseProcess) -> None:
    """Wait until the process is gone, which has answered, died, been asked to leave or never started."""
    if process.pid is None:
        return
    process.join(PATIENCE_SECONDS)
    if process.is_alive():
        process.kill()
        process.join()
