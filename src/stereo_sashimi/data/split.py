"""Which files of a folder are for training, validation and test; `dataset.py` cuts the files into clips."""

import hashlib
import os
import posixpath
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from natsort import natsorted

from stereo_sashimi.audio.io import AUDIO_SUFFIXES

SPLITS = ("train", "valid", "test")
RULES = ("order", "hash")
# Audio that is not read here: lossy kinds whose decoders disagree on the first frames, and kinds that few people have.
OTHER_SUFFIXES = (
    *(".mp3", ".m4a", ".mp4", ".aac", ".opus", ".wma", ".aif", ".aiff", ".aifc", ".caf", ".ape", ".wv", ".webm"),
    *(".au", ".w64"),
)
# Speech Commands (Warden 2018), and with it SC09, ships its split as two lists of paths relative to the folder.
LISTS = {"valid": "validation_list.txt", "test": "testing_list.txt"}
READ = ", ".join(AUDIO_SUFFIXES)
# Fewer clips for validation are worth a warning.
FEW_CLIPS = 10


class DataError(ValueError):
    """The data cannot be used as the configuration asks; the message names the folder or file and the remedy."""


@dataclass(frozen=True)
class FolderSplit:
    """The `files` of each split, the `rule` that chose them and what was `left_out`, both in words for people."""

    files: dict[str, list[Path]]
    rule: str
    left_out: str = ""


def find_audio(folder: str | Path, suffixes: Sequence[str] = AUDIO_SUFFIXES) -> list[Path]:
    """Audio files under `folder`, recursively, in natural order of their relative paths (track2 before track10).

    Files and folders whose name starts with a dot are left out.
    """
    folder = Path(folder)
    found: list[Path] = []
    for root, names, files in os.walk(folder):
        names[:] = [name for name in names if not name.startswith(".")]
        found += [Path(root, f) for f in files if not f.startswith(".") and Path(f).suffix.lower() in suffixes]
    return natsorted(found, key=lambda path: path.relative_to(folder).as_posix())


def other_kinds(folder: str | Path) -> str:
    """Audio files of kinds that are not read, as `3 .mp3, 1 .m4a`; empty where there are none."""
    kinds = Counter(path.suffix.lower() for path in find_audio(folder, OTHER_SUFFIXES))
    return ", ".join(f"{count} {suffix}" for suffix, count in kinds.most_common())


def duration(seconds: float) -> str:
    """`7.3 s`, `12.1 minutes` or `3.4 hours`."""
    hours, minutes = seconds / 3600, seconds / 60
    return f"{hours:.1f} hours" if hours >= 1 else f"{minutes:.1f} minutes" if minutes >= 1 else f"{seconds:.1f} s"


def listed(names: Sequence[str], most: int) -> str:
    """The first names of many."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def doubt(n_clips: int, seconds: float, *, silent: bool) -> str | None:
    """What is to be said of a validation split that can say little about the model; None for a good one."""
    if silent:
        state = "validation is silent: its files hold nothing but zeros"
    elif n_clips < FEW_CLIPS:
        state = f"validation is tiny: {n_clips} clips, {duration(seconds)}; its numbers will be noisy"
    else:
        return None
    return f"{state}. Add files, set dataset.train_percentage lower, or make subfolders train/, valid/ and test/"


def split_folder(
    folder: str | Path,
    train_percentage: float,
    dataset: str = "dataset",
    *,
    rule: str = "order",
    seed: int = 0,
    exclude: Sequence[str] = (),
    prepare: str | None = None,
) -> FolderSplit:
    """The files of each split.

    A folder with a subfolder `train` is split by its subfolders train, valid (or val) and test. A folder with
    validation_list.txt and testing_list.txt, as SC09 ships them, is split by these: one path a line, relative to the
    folder; what neither names is for training, names of files that are not there count for nothing. In any other
    folder the first `train_percentage` (0 to 1) of the files train, the rest is halved into valid and test: for `rule`
    "order" in the natural order of their names, at least one file each; for "hash" each file by a number from 0 to 1
    that depends on `seed` and its relative path alone, so that no file changes its split when others come or go. If
    that leaves a split empty, as with few files, they are cut like those of "order", but in the order of these numbers.

    `exclude`: paths relative to the folder of files to leave out. `prepare`: the command that makes the folder.

    Raises DataError for a missing folder, a missing or empty subfolder, lists that leave a split empty, name a file
    twice or lack their twin, excluded files that are not there, or fewer than 3 files.
    """
    folder = Path(folder)
    if folder.is_file():
        raise DataError(
            f"dataset {dataset!r}: {folder} is a file; dataset.path names a folder with audio files.\n"
            f"  Set dataset.path={folder.parent}, or another folder."
        )
    if not folder.is_dir():
        make = "" if prepare is None else f", or make it: `{prepare}`"
        raise DataError(
            f"dataset {dataset!r}: there is no folder {folder}.\n  Set dataset.path (relative to paths.data_dir){make}."
        )
    names = {path.relative_to(folder).as_posix(): path for path in find_audio(folder)}
    if unknown := [name for name in exclude if name not in names]:
        raise DataError(
            f"dataset {dataset!r}: dataset.exclude names {unknown[0]!r}, but {folder} has no such audio file.\n"
            "  Give paths relative to the folder, or leave it out of dataset.exclude."
        )
    files = [path for name, path in names.items() if name not in exclude]
    others = other_kinds(folder)
    left_out = ", ".join(filter(None, [f"{len(names) - len(files)} excluded" if exclude else "", others]))
    if (folder / "train").is_dir():
        found = {split: _subfolder(folder, split, files, dataset, prepare) for split in SPLITS}
        return FolderSplit(found, "by subfolders", left_out)
    if any((folder / name).is_file() for name in LISTS.values()):
        return FolderSplit(_by_lists(folder, files, dataset), "by its lists", left_out)
    if len(files) < 3:
        raise DataError(
            f"dataset {dataset!r}: {folder} holds {len(files)} audio files ({READ}){_unread(others)}; a split by file "
            "needs at least 3.\n"
            "  Cut longer files into several, or make subfolders train/, valid/ and test/ with one file or more each."
        )
    train, valid = split_points(len(files), train_percentage)
    ordered, how = files, "by order of names"
    if rule == "hash":
        number = {path: _hash(name, seed) for name, path in names.items()}
        ordered, how = sorted(files, key=number.__getitem__), "by hash of names"
        shares = (train_percentage, (1 + train_percentage) / 2)
        below = [sum(number[path] < share for path in files) for share in shares]
        if 0 < below[0] < below[1] < len(files):
            train, valid = below
        else:
            how = "by order of the hashes of names, as a split of so few files would be empty by hash"
    parts = dict(zip(SPLITS, map(set, (ordered[:train], ordered[train:valid], ordered[valid:])), strict=True))
    # Inside a split the order is that of names.
    return FolderSplit({split: [p for p in files if p in chosen] for split, chosen in parts.items()}, how, left_out)


def _hash(name: str, seed: int) -> float:
    """A number from 0 to 1, the same on every machine: some file systems store names decomposed (NFD)."""
    text = f"{seed}/{unicodedata.normalize('NFC', name)}"
    return int.from_bytes(hashlib.sha256(text.encode(errors="surrogateescape")).digest()[:8], "big") / 2**64


def _unread(others: str, joint: str = " and ") -> str:
    return f"{joint}{others}, which are not read" if others else ""


def split_points(n_files: int, train_percentage: float) -> tuple[int, int]:
    """Where validation and test begin among `n_files` >= 3 ordered files; no part is empty."""
    # The small number undoes the rounding of products such as 0.88 * 25.
    train = int(n_files * train_percentage + 1e-9)
    valid = int(n_files * (1 + train_percentage) / 2 + 1e-9)
    train = min(max(train, 1), n_files - 2)
    return train, min(max(valid, train + 1), n_files - 1)


def _by_lists(folder: Path, files: Sequence[Path], dataset: str) -> dict[str, list[Path]]:
    listed: dict[str, str] = {}
    for split, name in LISTS.items():
        if not (folder / name).is_file():
            raise DataError(
                f"dataset {dataset!r}: {folder} has a list of files, but {name} is missing.\n"
                f"  A split by lists needs {' and '.join(LISTS.values())}; add it, or take the other one away."
            )
        try:
            text = (folder / name).read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(f"dataset {dataset!r}: {folder / name} is no UTF-8 text: {error}.") from error
        for line in text.splitlines():
            # Lists come from other systems too.
            path = posixpath.normpath(line.strip().replace("\\", "/")) if line.strip() else ""
            if path and listed.setdefault(path, split) != split:
                raise DataError(
                    f"dataset {dataset!r}: {path} is in both {' and '.join(LISTS.values())} of {folder}.\n"
                    "  A file belongs to one split only; take it out of one list."
                )
    found: dict[str, list[Path]] = {split: [] for split in SPLITS}
    for file in files:
        found[listed.get(file.relative_to(folder).as_posix(), "train")].append(file)
    for split, members in found.items():
        if not members:
            raise DataError(
                f"dataset {dataset!r}: the lists in {folder} leave no audio file ({READ}) for "
                f"{split}, of {len(files)} in all.\n"
                f"  Their lines are paths relative to {folder}, as in `zero/0a7c2a8d_nohash_0.wav`."
            )
    return found


def _subfolder(folder: Path, split: str, files: Sequence[Path], dataset: str, prepare: str | None) -> list[Path]:
    names = ("valid", "val") if split == "valid" else (split,)
    present = [folder / name for name in names if (folder / name).is_dir()]
    if len(present) > 1:
        raise DataError(f"dataset {dataset!r}: {folder} has both valid/ and val/; keep one of them.")
    found = [path for path in files if path.is_relative_to(present[0])] if present else []
    if not found:
        state = f"is empty{_unread(other_kinds(present[0]), ' but for ')}" if present else "is missing"
        make = "" if prepare is None else f", or make the folder again: `{prepare}`"
        raise DataError(
            f"dataset {dataset!r}: {folder} has train/, so its subfolders are the split, but {split}/ {state}.\n"
            f"  Put audio files ({READ}) into {folder / split}{make}."
        )
    return found
