"""What is in a folder of audio, which files cannot be trained on, and the overrides that fit it. See `doctor.py`."""

import shlex
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from stereo_sashimi.audio.io import WIDE, AudioError, AudioInfo, check_readable, probe, read_pcm
from stereo_sashimi.commands.shared.overrides import override
from stereo_sashimi.data.split import DataError, find_audio, split_folder

FRAMES_AT_ONCE = 2**20
# Of all values of a file: below, full scale is a stray peak.
CLIPPED_SHARE = 1e-3
TRAIN_PERCENTAGE = 0.88
LISTED = 10


@dataclass
class Findings:
    """Lines to print, and the problems that keep training from running, each with what to do."""

    lines: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def say(self, name: str, text: str) -> None:
        """One fact."""
        self.lines.append(f"{name:<22}{text}")


def check_data(found: Findings, folder: Path, quick: bool) -> None:
    """Read every header in a folder, and without `quick` every sample."""
    if not folder.is_dir():
        found.problems.append(f"there is no folder {folder}: give a folder of audio files, data=FOLDER.")
        return
    files, infos = find_audio(folder), []
    silent: list[str] = []
    clipped: list[str] = []
    for path in files:
        try:
            info = probe(path)
            # Wide files are read rounded; that takes an override, no other file.
            check_readable(info, requantize=True)
            if info.frames == 0:
                found.problems.append(f"{path}: no frames. Remove the file.")
                continue
            peak, clipped_share = (1, 0.0) if quick else _levels(info)
        except AudioError as error:
            found.problems.append(" ".join(str(error).split()) + " Repair or remove the file.")
            continue
        infos.append(info)
        silent += [path.name] if peak == 0 else []
        clipped += [path.name] if clipped_share > CLIPPED_SHARE else []
    seconds = sum(info.frames / info.sample_rate for info in infos)
    length = f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{seconds / 60:.1f} minutes"
    found.say("data", f"{folder}: {len(files)} audio files, {length}{', headers only' if quick else ''}")
    for name, values in (
        ("rates", Counter(f"{info.sample_rate} Hz" for info in infos)),
        ("channels", Counter(str(info.n_channels) for info in infos)),
        ("samples", Counter(info.subtype for info in infos)),
    ):
        if values:
            mixed = ", mixed" if len(values) > 1 else ""
            found.say(name, ", ".join(f"{value}: {n} files" for value, n in values.most_common()) + mixed)
    if silent:
        found.say("silent", f"{_listed(silent)}: nothing but zeros; training learns to be silent from them")
    if clipped:
        found.say("clipped", f"{_listed(clipped)}: more than {CLIPPED_SHARE:.1%} of the values at full scale")
    if many := [str(info.path.relative_to(folder)) for info in infos if info.n_channels > 2]:
        found.problems.append(f"{_listed(many)}: more than 2 channels. Mix them down or remove them.")
    try:
        splits = split_folder(folder, TRAIN_PERCENTAGE)
    except DataError as error:
        splits = {}
        found.problems.append(" ".join(str(error).split()))
    frames = {info.path: info.frames for info in infos}
    for split, members in splits.items():
        lengths = [frames[path] for path in members if path in frames]
        shortest = f", the shortest of {min(lengths):,} frames" if lengths else ""
        found.say(split, f"{len(members)} files, {sum(lengths):,} frames{shortest}")
    if infos:
        found.say("use", " ".join(["python train.py", *overrides(folder, infos)]))


def overrides(folder: Path, infos: list[AudioInfo]) -> list[str]:
    """The words for train.py that fit these files."""
    words = ["dataset=folder", shlex.quote(override("dataset.path", str(folder.resolve())))]
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


def _listed(names: list[str]) -> str:
    return ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")
