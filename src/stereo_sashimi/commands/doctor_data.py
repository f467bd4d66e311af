"""What is in a folder of audio, which files cannot be trained on, and the overrides that fit it. See `doctor.py`."""

import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Content:
    """What a whole file holds: its largest magnitude (0 to 32768), and the share of values at full scale."""

    peak: int
    clipped: float


def examine(folder: Path, quick: bool) -> tuple[list[str], list[str]]:
    """Facts about a folder and problems that keep it from being trained on, one line each.

    Every header is read, and without `quick` every sample. Nothing is changed.
    """
    if not folder.is_dir():
        return [], [f"there is no folder {folder}: give a folder of audio files, data=FOLDER."]
    files = find_audio(folder)
    infos: list[AudioInfo] = []
    contents: dict[Path, Content] = {}
    problems: list[str] = []
    for path in files:
        try:
            info = probe(path)
            # Wide files are read rounded; that takes an override, no other file.
            check_readable(info, requantize=True)
            if info.frames == 0:
                problems.append(f"{path}: no frames. Remove the file.")
                continue
            if not quick:
                contents[path] = _content(info)
        except AudioError as error:
            problems.append(" ".join(str(error).split()) + " Repair or remove the file.")
            continue
        infos.append(info)
    facts = [_line("data", f"{folder}: {len(files)} audio files, {_hours(infos)}{', headers only' if quick else ''}")]
    facts += list(_counts(infos))
    facts += list(_notes(contents))
    if any(info.n_channels > 2 for info in infos):
        many = [info.path for info in infos if info.n_channels > 2]
        problems.append(f"{_names(many, folder)}: more than 2 channels. Mix them down or remove them.")
    facts += list(_splits(folder, infos, problems))
    if infos:
        facts.append(_line("use", " ".join(["python train.py", *overrides(folder, infos)])))
    return facts, problems


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


def _content(info: AudioInfo) -> Content:
    peak = full = 0
    for start in range(0, info.frames, FRAMES_AT_ONCE):
        pcm, clipped = read_pcm(info.path, start, min(FRAMES_AT_ONCE, info.frames - start), requantize=True)
        wide = np.abs(pcm.astype(np.int32))
        peak = max(peak, int(wide.max()))
        full += max(clipped, int((wide >= 32767).sum()))
    return Content(peak, full / (info.frames * info.n_channels))


def _counts(infos: list[AudioInfo]) -> Iterator[str]:
    for name, values in (
        ("rates", [f"{info.sample_rate} Hz" for info in infos]),
        ("channels", [str(info.n_channels) for info in infos]),
        ("samples", [info.subtype for info in infos]),
    ):
        counts = Counter(values)
        if counts:
            mixed = ", mixed" if len(counts) > 1 else ""
            yield _line(name, ", ".join(f"{value}: {n} files" for value, n in counts.most_common()) + mixed)


def _notes(contents: dict[Path, Content]) -> Iterator[str]:
    silent = [path for path, content in contents.items() if content.peak == 0]
    clipped = [path for path, content in contents.items() if content.clipped > CLIPPED_SHARE]
    if silent:
        yield _line("silent", f"{_names(silent)}: nothing but zeros; training learns to be silent from them")
    if clipped:
        yield _line("clipped", f"{_names(clipped)}: more than {CLIPPED_SHARE:.1%} of the values at full scale")


def _splits(folder: Path, infos: list[AudioInfo], problems: list[str]) -> Iterator[str]:
    frames = {info.path: info.frames for info in infos}
    try:
        splits = split_folder(folder, TRAIN_PERCENTAGE)
    except DataError as error:
        problems.append(" ".join(str(error).split()))
        return
    for split, files in splits.items():
        lengths = [frames[path] for path in files if path in frames]
        shortest = f", the shortest of {min(lengths):,} frames" if lengths else ""
        yield _line(split, f"{len(files)} files, {sum(lengths):,} frames{shortest}")


def _line(name: str, text: str) -> str:
    return f"{name:<22}{text}"


def _hours(infos: list[AudioInfo]) -> str:
    seconds = sum(info.frames / info.sample_rate for info in infos)
    return f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{seconds / 60:.1f} minutes"


def _names(paths: list[Path], folder: Path | None = None) -> str:
    shown = [str(path.relative_to(folder)) if folder else path.name for path in paths[:LISTED]]
    return ", ".join(shown) + (f" and {len(paths) - LISTED} more" if len(paths) > LISTED else "")
