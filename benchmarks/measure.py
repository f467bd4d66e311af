"""Pieces of work timed by torch.utils.benchmark, each variant in a process of its own, in turns."""

import multiprocessing
import resource
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch.utils.benchmark import Timer

GIB = 2**30
# What a machine may lack: memory, a device, a backend. Other exceptions are mistakes of ours and show their traceback.
LACKS = (ValueError, OSError, RuntimeError, MemoryError, ImportError, MisconfigurationException)
Row = dict[str, Any]


@dataclass
class Settings:
    """The `bench.` keys of all commands: rounds, seconds of a round at least, JSON in place of a table."""

    repeats: int = 5
    seconds: float = 0.5
    json: bool = False

    def __post_init__(self) -> None:
        if self.repeats < 1 or not self.seconds > 0:
            raise ValueError("bench.repeats must be at least 1 and bench.seconds above 0.")


class Work(NamedTuple):
    """Something to time.

    Attributes:
        run: one call of it.
        amount, unit: what one call processes, as 8192 samples.
        facts: more columns of its row.
        least_seconds: of one call on an ideal machine like this one, if known.
    """

    run: Callable[[], object] | None
    amount: float
    unit: str
    facts: dict[str, Any] = {}  # noqa: RUF012
    least_seconds: float | None = None


# From the overrides of train.py and the settings to named pieces of work; runs in the process that measures.
Prepare = Callable[[Sequence[str], Any], dict[str, Work]]


class MeasurementError(RuntimeError):
    """A variant could not be measured on this machine."""


def compare(
    prepare: Prepare, variants: Mapping[str, tuple[Sequence[str], Settings]]
) -> tuple[list[Row], dict[str, str]]:
    """Time every piece of every variant, round by round in turns; the rows, and why variants have none."""
    times: dict[tuple[str, str], list[float]] = {}
    works: dict[tuple[str, str], Work] = {}
    peaks: dict[str, float] = {}
    failures: dict[str, str] = {}

    @contextmanager
    def noting(label: str) -> Iterator[None]:
        try:
            yield
        except MeasurementError as error:
            failures[label] = str(error)

    with ExitStack() as stack:
        workers = {
            label: stack.enter_context(_worker(prepare, words, settings))
            for label, (words, settings) in variants.items()
        }
        for label, pipe in workers.items():
            with noting(label):
                works |= {(name, label): work for name, work in _answer(pipe).items()}
        for _ in range(next(iter(variants.values()))[1].repeats):
            # All variants of one piece next to each other.
            for name, label in sorted(works, key=lambda key: [name for name, _ in works].index(key[0])):
                if label not in failures:
                    with noting(label):
                        found, peaks[label] = _answer(workers[label], name)
                        times.setdefault((name, label), []).extend(found)
    first: dict[str, float] = {}
    rows = []
    for (name, label), found in times.items():
        if label in failures:
            continue
        work, seconds = works[name, label], median(found)
        row = {
            "variant": label,
            "what": name,
            "seconds": seconds,
            "fastest": min(found),
            f"{work.unit}/s": work.amount / seconds,
            "peak_gib": peaks[label] / GIB,
        }
        if len(variants) > 1:
            row["ratio"] = first.setdefault(name, seconds) / seconds
        if work.least_seconds is not None:
            row["share_of_roof"] = work.least_seconds / seconds
        rows.append(row | work.facts)
    return rows, failures


def table(rows: Sequence[Row]) -> str:
    """A markdown table; columns that are the same in all rows stand above it, texts of several lines below."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    texts = [str(row[name]) for row in rows for name in row if "\n" in str(row[name])]
    plain = [name for name in names if not any("\n" in str(row.get(name)) for row in rows)]
    shared = [name for name in plain if len(rows) > 1 and len({str(row.get(name)) for row in rows}) == 1]
    columns = [name for name in plain if name not in shared]
    head = [f"{name}: {_text(rows[0][name])}" for name in shared]
    lines = [" | ".join(columns), " | ".join("---" for _ in columns)]
    lines += [" | ".join(_text(row.get(name)) for name in columns) for row in rows]
    return "\n".join([", ".join(head), "", *(f"| {line} |" for line in lines), *texts]).lstrip()


def fastest(run: Callable[[], object], seconds: float = 0.2) -> float:
    """The seconds of the fastest of several calls."""
    return min(_timer(run).blocked_autorange(min_run_time=seconds).times)


def _timer(run: Callable[[], object] | None) -> Timer:
    return Timer("run()", globals={"run": run}, num_threads=torch.get_num_threads())


def _text(value: object) -> str:
    if not isinstance(value, float):
        return "" if value is None else str(value)
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _answer(pipe: Connection, request: str | None = None) -> Any:
    try:
        if request is not None:
            pipe.send(request)
        answer = pipe.recv()
    except (EOFError, BrokenPipeError, ConnectionResetError) as error:
        raise MeasurementError("its process ended; without a traceback above, memory ran out.") from error
    if isinstance(answer, MeasurementError):
        raise answer
    return answer


@contextmanager
def _worker(prepare: Prepare, words: Sequence[str], settings: Settings) -> Iterator[Connection]:
    """A new process that prepares its work and times what is asked for through the pipe."""
    spawn = multiprocessing.get_context("spawn")
    pipe, theirs = spawn.Pipe()
    process = spawn.Process(target=_measure, args=(theirs, prepare, words, settings))
    # What is started now never sees Ctrl-C, which a terminal sends to all processes; this one sees it afterwards.
    # multiprocessing's own process comes first, as starting it lets the signal in again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    theirs.close()
    try:
        yield pipe
        pipe.close()
        process.join(5)
    finally:
        process.terminate()
        process.join(5)
        process.kill()
        process.join()


def _measure(pipe: Connection, prepare: Prepare, words: Sequence[str], settings: Settings) -> None:
    # Unlike the default this removes temporary files on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        works = prepare(words, settings)
        timers = {name: _timer(work.run) for name, work in works.items()}
        pipe.send({name: work._replace(run=None) for name, work in works.items()})
        while True:
            # Each round begins with calls that are not counted.
            found = timers[pipe.recv()].blocked_autorange(min_run_time=settings.seconds)
            pipe.send((found.times, _peak_bytes()))
    except (EOFError, BrokenPipeError):
        return
    except LACKS as error:
        # Not every exception survives the way between processes.
        pipe.send(MeasurementError(f"{type(error).__name__}: {error}"))


def _peak_bytes() -> int:
    """The most memory so far: of tensors where a CUDA device was used, else of this process, libraries included."""
    if torch.cuda.is_initialized() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.is_file():
        # ru_maxrss begins with the peak of the process that started this one.
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        return int(fields["VmHWM"].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
