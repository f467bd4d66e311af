"""Can this machine train, and is this folder fit to train on? Everything that is said to work has been run.

The keys are in configs/doctor.yaml, the data checks in `doctor_data.py`.
"""

import importlib
import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
import torch
from omegaconf import DictConfig

from stereo_sashimi.audio.io import read_pcm, write_pcm
from stereo_sashimi.commands.doctor_data import examine
from stereo_sashimi.nn.ssm import DPLR
from stereo_sashimi.ops.s4_response import KERNELS, BackendError, resolve
from stereo_sashimi.schema import check_type

NEEDED = ("torch", "pytorch-lightning", "hydra-core", "numpy", "soundfile")
USEFUL = ("torchaudio", "pykeops", "triton", "numba", "musdb", "wandb", "hydra-optuna-sweeper")
KERNEL_TOLERANCE = 1e-9


@dataclass
class Findings:
    """Lines to print, and of these the problems that keep training from running."""

    lines: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def say(self, name: str, text: str) -> None:
        """One fact."""
        self.lines.append(f"{name:<22}{text}")

    def problem(self, text: str) -> None:
        """One thing that is broken, and what to do."""
        self.problems.append(text)


def check_versions(found: Findings) -> None:
    """Versions of what is needed and of what is useful; torchaudio is imported, as it may be there and not load."""
    found.say("python", f"{platform.python_version()} on {platform.platform()}")
    for name in NEEDED + USEFUL:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found.say(name, "not installed")
            if name in NEEDED:
                found.problem(f"{name} is not installed: pip install -e . in the repository.")
            continue
        reason = _why_not_imported("torchaudio") if name == "torchaudio" else None
        found.say(name, version + (f", does not import ({reason}); resampling takes soxr" if reason else ""))
    found.say("libsndfile", soundfile.__libsndfile_version__)
    for program in ("ffmpeg", "ffprobe"):
        found.say(program, shutil.which(program) or "not on PATH; only musdb's own reader of *.stem.mp4 wants it")


def check_devices(found: Findings) -> None:
    """GPUs with their memory, CPU cores, and the trap of more threads than free cores."""
    for i in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(i)
        name = torch.cuda.get_device_name(i)
        found.say(f"cuda:{i}", f"{name}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free")
        try:
            ones = torch.ones(64, 64, device=f"cuda:{i}")
            works = bool((ones @ ones == 64).all())
        except RuntimeError as error:
            works = False
            found.say("", str(error).splitlines()[0])
        if not works:
            found.problem(f"cuda:{i} ({name}) does not compute: update the driver, or use trainer=cpu.")
    if not torch.cuda.device_count():
        found.say("cuda", "no device; training runs on the CPU (trainer=cpu)")
    cores, threads = usable_cores(), torch.get_num_threads()
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    found.say("cpu", f"{cores} cores for this process, load {busy:.1f}, torch uses {threads} threads")
    if advice := thread_advice(cores, threads, busy):
        found.say("", advice)


def usable_cores() -> int:
    """Cores that this process may use: its affinity, and the limit of its container (cgroup v2)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = Path("/sys/fs/cgroup/cpu.max")
    if limit.is_file():
        quota, period = limit.read_text().split()
        if quota != "max":
            cores = min(cores, max(1, int(quota) // int(period)))
    return cores


def thread_advice(cores: int, threads: int, busy: float) -> str | None:
    """What to set if OpenMP threads would have to wait for each other: they spin, and all of them become slow."""
    free = max(1, round(cores - busy))
    if threads <= free:
        return None
    return f"warning: {threads} threads for {free} free of {cores} cores; set OMP_NUM_THREADS={free}"


def check_backends(found: Findings) -> None:
    """Run every kernel backend forward and backward on a small SSM and compare it with the reference."""
    torch.manual_seed(0)
    ssm = DPLR(4, 8, None, 0.001, 0.1, "softplus").double()
    devices = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
    expected = [value.cpu() for value in _kernel_and_gradients(ssm, "reference")]
    for name in KERNELS:
        for device in devices:
            label = f"backend {name}, {device}"
            try:
                resolve(name)
                values = _kernel_and_gradients(ssm.to(device), name)
            except (BackendError, RuntimeError) as error:
                found.lines.append(f"{label}: does not run ({str(error).splitlines()[0][:160]})")
                # keops is an extra, triton is for GPUs; what `auto` takes must run.
                if name == resolve("auto"):
                    found.problem(f"{label} does not run: reinstall torch (pip install -e .).")
                continue
            worst = max(float((v.cpu() - e).abs().max()) for v, e in zip(values, expected, strict=True))
            found.lines.append(f"{label}: runs, values and gradients within {worst:.1e} of the reference")
            if not worst <= KERNEL_TOLERANCE:
                found.problem(f"{label} computes wrong kernels (off by {worst:.1e}): use another backend=.")


def check_audio(found: Findings) -> None:
    """Write and read a short file of each kind."""
    pcm = (8000 * np.sin(np.arange(4410) / 20)).astype(np.int16).repeat(2).reshape(-1, 2)

    def lossy(path: Path) -> None:
        soundfile.write(path, pcm.astype(np.float32) / 32768, 44100, format="OGG", subtype="VORBIS")

    writers: dict[str, Callable[[Path], None]] = {
        ".wav": lambda path: write_pcm(path, pcm, 44100),
        ".flac": lambda path: write_pcm(path, pcm, 44100),
        ".ogg": lossy,
    }
    with tempfile.TemporaryDirectory() as folder:
        for suffix, write in writers.items():
            path = Path(folder, f"tone{suffix}")
            try:
                write(path)
                back, _ = read_pcm(path)
                exact = back.shape == pcm.shape and bool((back == pcm).all())
                near = back.shape == pcm.shape and int(np.abs(back.astype(int) - pcm).max()) < 2000
            except (ValueError, OSError, soundfile.SoundFileError) as error:
                found.problem(f"{suffix} files cannot be written and read here ({error}): pip install -U soundfile.")
                continue
            found.say(f"audio {suffix}", "written and read" + (", to the bit" if exact else ""))
            if not (exact or (suffix == ".ogg" and near)):
                found.problem(f"{suffix} files come back changed: pip install -U soundfile.")


def doctor(data: str | None = None, quick: bool = False) -> Findings:
    """All checks; `data` is a folder of audio files, `quick` reads their headers only."""
    found = Findings()
    for check in (check_versions, check_devices, check_backends, check_audio):
        check(found)
    if data is not None:
        facts, problems = examine(Path(data), quick)
        found.lines += ["", *facts]
        found.problems += problems
    return found


def _kernel_and_gradients(ssm: DPLR, backend: str) -> list[torch.Tensor]:
    kernel = KERNELS[backend](ssm.discretize(), 50, torch.float64)
    gradients = torch.autograd.grad(kernel.square().sum(), list(ssm.parameters()))
    return [kernel.detach(), *gradients]


def _why_not_imported(module: str) -> str | None:
    try:
        importlib.import_module(module)
    except (ImportError, OSError) as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return None


def run(cfg: DictConfig) -> None:
    """Print the findings, problems last; exit with 1 if there are any."""
    found = doctor(None if cfg.data is None else str(cfg.data), check_type(cfg.quick, bool, "quick"))
    print("\n".join(found.lines))
    if found.problems:
        print(f"\n{len(found.problems)} problem{'s' if len(found.problems) > 1 else ''}:")
        print("\n".join(f"- {problem}" for problem in found.problems))
        sys.exit(1)
    print("\nready: training can run")
