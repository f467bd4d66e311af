"""Can this machine train, and is this folder fit to train on? Everything that is said to work has been run.

The keys are in configs/doctor.yaml.
"""

import importlib
import importlib.metadata
import os
import platform
import shlex
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
import torch
from natsort import natsorted
from omegaconf import DictConfig

from stereo_sashimi.audio.io import WIDE, AudioError, AudioInfo, check_readable, probe, read_pcm, write_pcm
from stereo_sashimi.commands.shared.errors import as_typed
from stereo_sashimi.commands.shared.overrides import override
from stereo_sashimi.data.split import READ, DataError, doubt, duration, find_audio, listed, other_kinds, split_folder
from stereo_sashimi.nn.s4 import S4Config, SSMParameters
from stereo_sashimi.ops.s4_response import KERNELS, BackendError, resolve
from stereo_sashimi.schema import check_type

NEEDED = ("torch", "pytorch-lightning", "hydra-core", "numpy", "soundfile")
USEFUL = ("torchaudio", "pykeops", "triton", "numba", "musdb", "litdata", "wandb", "trackio", "hydra-optuna-sweeper")
KERNEL_TOLERANCE = 1e-9
# Of a coded sine with a peak of 8000.
VORBIS_TOLERANCE = 2000
FRAMES_AT_ONCE = 2**20
# Of all values of a file: below, full scale is a stray peak.
CLIPPED_SHARE = 1e-3
# As in configs/experiment/audio/folder.yaml.
TRAIN_PERCENTAGE, SAMPLE_LEN = 0.88, 8192
LISTED = 10


@dataclass
class Findings:
    """Lines to print, and the problems that keep training from running, each with what to do."""

    lines: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def say(self, name: str, text: str) -> None:
        """One fact."""
        self.lines.append(f"{name:<22}{text}")


def run(cfg: DictConfig) -> None:
    """Print the findings, problems last; exit with 1 if there are any."""
    quick, found = check_type(cfg.quick, bool, "quick"), Findings()
    for check in (check_versions, check_devices, check_backends, check_audio):
        check(found)
    if cfg.data is not None:
        found.lines.append("")
        check_data(found, Path(str(cfg.data)), quick)
    print("\n".join(found.lines))
    if found.problems:
        print(f"\n{len(found.problems)} problem{'s' if len(found.problems) > 1 else ''}:")
        print("\n".join(f"- {problem}" for problem in found.problems))
        sys.exit(1)
    print("\nready: training can run")


def check_versions(found: Findings) -> None:
    """Versions of what is needed and of what is useful; torchaudio is imported, as it may be there and not load."""
    found.say("python", f"{platform.python_version()} on {platform.platform()}")
    for name in NEEDED + USEFUL:
        try:
            version = importlib.metadata.version(name)
            if name == "torchaudio":
                importlib.import_module(name)
        except importlib.metadata.PackageNotFoundError:
            version = "not installed"
            if name in NEEDED:
                found.problems.append(f"{name} is not installed: pip install -e . in the repository.")
        except (ImportError, OSError) as error:
            reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"
            version += f", does not import ({reason}); resampling takes soxr"
        found.say(name, version)
    found.say("libsndfile", soundfile.__libsndfile_version__)


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
            found.problems.append(f"cuda:{i} ({name}) does not compute: update the driver, or use trainer=cpu.")
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
    quota, period = limit.read_text().split() if limit.is_file() else ("max", "")
    return cores if quota == "max" else min(cores, max(1, int(quota) // int(period)))


def thread_advice(cores: int, threads: int, busy: float) -> str | None:
    """What to set if OpenMP threads would have to wait for each other: they spin, and all of them become slow."""
    free = max(1, round(cores - busy))
    if threads <= free:
        return None
    return f"warning: {threads} threads for {free} free of {cores} cores; set OMP_NUM_THREADS={free}"


def check_backends(found: Findings) -> None:
    """Run every kernel backend forward and backward on a small SSM and compare it with the reference."""
    torch.manual_seed(0)
    ssm = S4Config(d_state=8, n_ssm=None).build(4).double()
    expected = [value.cpu() for value in _kernel_and_gradients(ssm, "reference")]
    for name in KERNELS:
        for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
            label = f"backend {name}, {device}"
            try:
                resolve(name)
                values = _kernel_and_gradients(ssm.to(device), name)
            except (BackendError, RuntimeError) as error:
                found.lines.append(f"{label}: does not run ({str(error).splitlines()[0]})")
                # keops is an extra, triton is for GPUs; what `auto` takes must run.
                if name == resolve("auto"):
                    found.problems.append(f"{label} does not run: reinstall torch (pip install -e .).")
                continue
            worst = max(float((v.cpu() - e).abs().max()) for v, e in zip(values, expected, strict=True))
            found.lines.append(f"{label}: runs, values and gradients within {worst:.1e} of the reference")
            if not worst <= KERNEL_TOLERANCE:
                found.problems.append(f"{label} computes wrong kernels (off by {worst:.1e}): use another backend=.")


def _kernel_and_gradients(ssm: SSMParameters, backend: str) -> list[torch.Tensor]:
    kernel = KERNELS[backend](ssm.discretize(), 50, torch.float64)
    gradients = torch.autograd.grad(kernel.square().sum(), list(ssm.parameters()))
    return [kernel.detach(), *gradients]


def check_audio(found: Findings) -> None:
    """Write and read a short file of each kind."""
    pcm = (8000 * np.sin(np.arange(4410) / 20)).astype(np.int16).repeat(2).reshape(-1, 2)
    for suffix, tolerance in ((".wav", 0), (".flac", 0), (".ogg", VORBIS_TOLERANCE)):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, f"tone{suffix}")
            try:
                if tolerance:
                    soundfile.write(path, pcm.astype(np.float32) / 32768, 44100, format="OGG", subtype="VORBIS")
                else:
                    write_pcm(path, pcm, 44100)
                back, _ = read_pcm(path)
            except (ValueError, OSError, soundfile.SoundFileError) as error:
                why = f"cannot be written and read here ({error})"
                found.problems.append(f"{suffix} files {why}: pip install -U soundfile.")
                continue
        off = int(np.abs(back.astype(int) - pcm).max()) if back.shape == pcm.shape else 65536
        found.say(f"audio {suffix}", "written and read" + (", to the bit" if off == 0 else ""))
        if off > tolerance:
            found.problems.append(f"{suffix} files come back changed: pip install -U soundfile.")


def check_data(found: Findings, folder: Path, quick: bool) -> None:
    """Read every header in a folder, and without `quick` every sample; say how to train on what is good."""
    if not folder.is_dir():
        found.problems.append(f"there is no folder {folder}: give a folder of audio files, data=FOLDER.")
        return
    files, infos = find_audio(folder), []
    bad, silent, clipped = list[str](), list[str](), list[str]()
    for path in files:
        name = path.relative_to(folder).as_posix()
        try:
            info = probe(path)
            # Wide files are read rounded; that takes an override, no other file.
            check_readable(info, requantize=True)
            if info.frames == 0:
                raise AudioError(f"{path}: no frames.")
            if info.n_channels > 2:
                raise AudioError(f"{path}: more than 2 channels. Mix them down.")
            peak, clipped_share = (1, 0.0) if quick else _levels(info)
        except AudioError as error:
            bad.append(name)
            found.problems.append(" ".join(str(error).split()))
            continue
        infos.append(info)
        silent += [name] if peak == 0 else []
        clipped += [name] if clipped_share > CLIPPED_SHARE else []
    lengths = {info.path: info.frames / info.sample_rate for info in infos}
    length = duration(sum(lengths.values()))
    found.say("data", f"{folder}: {len(files)} audio files, {length}{', headers only' if quick else ''}")
    for kind, values in (
        ("rates", Counter(f"{info.sample_rate} Hz" for info in infos)),
        ("channels", Counter(str(info.n_channels) for info in infos)),
        ("samples", Counter(info.subtype for info in infos)),
    ):
        if values:
            mixed = ", mixed" if len(values) > 1 else ""
            found.say(kind, ", ".join(f"{value}: {n} files" for value, n in values.most_common()) + mixed)
    if silent:
        found.say("silent", f"{listed(silent, LISTED)}: nothing but zeros; there is nothing to learn in them")
    if clipped:
        found.say("clipped", f"{listed(clipped, LISTED)}: more than {CLIPPED_SHARE:.1%} of the values at full scale")
    if others := other_kinds(folder):
        found.say("not read", f"{others}; only {READ} are: convert them, or they are left out")
    exclude = natsorted([*bad, *silent])
    try:
        split = split_folder(folder, TRAIN_PERCENTAGE, rule="hash", exclude=exclude)
    except DataError as error:
        found.problems.append(" ".join(str(error).split()))
        return
    found.say("split", split.rule)
    for name, members in split.files.items():
        seconds = [lengths[path] for path in members]
        names = listed([path.name for path in members], 3)
        found.say(name, f"{len(members)} files, {duration(sum(seconds))}, the shortest {min(seconds):.1f} s: {names}")
    valid = [info for info in infos if info.path in split.files["valid"]]
    clips = sum(-(-info.frames // SAMPLE_LEN) for info in valid)
    if warning := doubt(clips, sum(lengths[info.path] for info in valid), silent=False):
        found.say("warning", warning)
    if exclude:
        found.say("exclude", f"{listed(exclude, LISTED)}: the command below leaves them out")
    found.say("use", as_typed(" ".join(["python train.py", *overrides(folder, infos, exclude)])))


def overrides(folder: Path, infos: list[AudioInfo], exclude: list[str]) -> list[str]:
    """The words for train.py that fit these files."""
    words = ["experiment=audio/folder", shlex.quote(override("dataset.path", str(folder.resolve())))]
    channels = Counter(min(info.n_channels, 2) for info in infos)
    stereo = channels[2] >= channels[1]
    words.append(f"dataset.is_stereo={str(stereo).lower()}")
    if stereo and channels[1]:
        words.append("dataset.upmix=true")
    rates = Counter(info.sample_rate for info in infos)
    if len(rates) > 1:
        words.append(f"dataset.sample_rate={rates.most_common(1)[0][0]}")
    if any(info.subtype in WIDE for info in infos):
        words.append("dataset.requantize=true")
    if exclude:
        words.append(shlex.quote(override("dataset.exclude", exclude)))
    return words


def _levels(info: AudioInfo) -> tuple[int, float]:
    """The largest magnitude in a file, 0 to 32768, and the share of values at full scale."""
    peak = full = 0
    for start in range(0, info.frames, FRAMES_AT_ONCE):
        pcm, clipped = read_pcm(info.path, start, min(FRAMES_AT_ONCE, info.frames - start), requantize=True)
        magnitude = np.abs(pcm.astype(np.int32))
        peak = max(peak, int(magnitude.max()))
        full += max(clipped, int((magnitude >= 32767).sum()))
    return peak, full / (info.frames * info.n_channels)
