"""Times and memory of a benchmark: how a repeated piece of work is timed, and the peak of this process."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

# More than this much work per core, before anything was started, and times are not to be trusted.
BUSY = 0.5


def repeated(work: Callable[[], object], device: torch.device, *, warmup: int, repeats: int) -> list[float]:
    """Seconds that each of `repeats` calls of `work` takes, behind `warmup` calls that are not timed.

    The time of a call is that of the wall clock until the device has done all of it: on a GPU, launches included.
    """
    for _ in range(warmup):
        work()
    times = []
    for _ in range(repeats):
        synchronize(device)
        start = time.perf_counter()
        work()
        synchronize(device)
        times.append(time.perf_counter() - start)
    return times


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done what it was given; a CPU has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_peak(device: torch.device) -> None:
    """Let `peak_bytes` of a CUDA device begin anew; a process only ever has one peak."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> int:
    """The most memory so far: of tensors on a CUDA device, else of this process, Python and libraries included."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.is_file():
        # ru_maxrss begins with the peak of the process that started this one.
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        return int(fields["VmHWM"].split()[0]) * 1024
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def load_average() -> list[float]:
    """Processes that ran or waited to, on average over 1, 5 and 15 minutes."""
    return [round(value, 2) for value in os.getloadavg()]


def warn_if_busy(load: list[float]) -> None:
    """Say on stderr that times will be too long, if other programs keep the cores busy already."""
    cores = os.cpu_count() or 1
    if load[0] > BUSY * cores:
        print(
            f"warning: this machine is busy: load {load[0]} on {cores} cores before the start. Times will be too "
            "long; stop other programs and wait a minute.",
            file=sys.stderr,
        )
