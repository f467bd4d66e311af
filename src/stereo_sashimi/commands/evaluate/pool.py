"""Scoring the recordings of an evaluation: one after the other here, or several at once in processes of their own.

Each process computes with one thread: more of them add in another order, which moves the last bits of a total.
"""

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import contextmanager
from multiprocessing.synchronize import Event

import torch

from stereo_sashimi.commands.evaluate.evaluate_options import Track
from stereo_sashimi.commands.evaluate.tracks import Job, evaluate_track
from stereo_sashimi.commands.shared.progress import Meter
from stereo_sashimi.commands.shared.signals import Signals, Stopped
from stereo_sashimi.metrics.totals import TrackResult

# How long a signal may go unseen while other processes work.
POLL_SECONDS = 0.5
# Of this process when it is one of several: what they do, and whether they shall stop.
_worker: tuple[Job, Event] | None = None


def evaluate_all(
    job: Job,
    tracks: Sequence[Track],
    processes: int,
    signals: Signals,
    meter: Meter,
    told: Callable[[TrackResult], None],
) -> None:
    """Score all `tracks`, up to `processes` of them at the same time; `told` gets each result when it is there.

    Where a signal raises Stopped, the recordings at work are saved first.
    """
    processes = min(processes, len(tracks))
    if processes > 1:
        _in_processes(job, tracks, processes, signals, meter, told)
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for track in tracks:
            told(evaluate_track(job, track, meter.add))
    finally:
        torch.set_num_threads(threads)


def _in_processes(
    job: Job,
    tracks: Sequence[Track],
    processes: int,
    signals: Signals,
    meter: Meter,
    told: Callable[[TrackResult], None],
) -> None:
    # Spawned: a fork would take over threads' locks, and has no CUDA.
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    executor = ProcessPoolExecutor(processes, context, _begin, (job, stop))
    try:
        with _not_for_children():
            pending = {executor.submit(_in_worker, track) for track in tracks}
        while pending:
            done, pending = wait(pending, POLL_SECONDS, FIRST_COMPLETED)
            for future in done:
                result = future.result()
                meter.add(result.frames * len(job.passes()))
                told(result)
    except BaseException:
        # They save what they reached; a second Ctrl-C waits for that.
        signals.hold()
        stop.set()
        raise
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _not_for_children() -> Iterator[None]:
    """Ctrl-C reaches all processes of a terminal; those begun in here ignore it, as this one tells them to stop."""
    signals = (signal.SIGINT, signal.SIGTERM)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(job: Job, stop: Event) -> None:
    global _worker
    _worker = job, stop
    torch.set_num_threads(1)


def _in_worker(track: Track) -> TrackResult:
    assert _worker is not None
    job, stop = _worker
    parent = multiprocessing.parent_process()

    def watch(frames: int) -> None:
        if stop.is_set() or (parent is not None and not parent.is_alive()):
            raise Stopped(signal.SIGTERM)

    return evaluate_track(job, track, watch)
