"""Which files of a folder are for training, validation and test; `dataset.py` cuts the files into clips."""

import os
import posixpath
from collections.abc import Sequence
from pathlib import Path

from natsort import natsorted

from stereo_sashimi.audio.io import AUDIO_SUFFIXES

SPLITS = ("train", "valid", "test")
# Speech Commands (Warden 2018), and with it SC09, ships its split as two lists of paths relative to the folder.
LISTS = {"valid": "validation_list.txt", "test": "testing_list.txt"}


class DataError(ValueError):
    """The data cannot be used as the configuration asks; the message names the folder or file and the remedy."""


def find_audio(folder: str | Path) -> list[Path]:
    """Audio files under `folder`, recursively, in natural order of their relative paths (track2 before track10).

    Files and folders whose name starts with a dot are left out.
    """
    folder = Path(folder)
    found: list[Path] = []
    for root, names, files in os.walk(folder):
        names[:] = [name for name in names if not name.startswith(".")]
        found += [
            Path(root, file)
            for file in files
            if not file.startswith(".") and Path(file).suffix.lower() in AUDIO_SUFFIXES
        ]
    return natsorted(found, key=lambda path: path.relative_to(folder).as_posix())


def split_folder(folder: str | Path, train_percentage: float, dataset: str = "dataset") -> dict[str, list[Path]]:
    """Files of each split: {"train": [...], "valid": [...], "test": [...]}.

    A folder with a subfolder `train` is split by its subfolders train, valid (or val) and test. A folder with
    validation_list.txt and testing_list.txt, as SC09 ships them, is split by these: one path a line, relative to the
    folder; what neither names is for training, names of files that are not there count for nothing. Any other folder
    is split by the natural order of all files: the first `train_percentage` (0 to 1) of them train, the rest is
    halved into valid and test, at least one file each.

    Raises DataError for a missing folder, a missing or empty subfolder, lists that leave a split empty, name a file
    twice or lack their twin, or fewer than 3 files.
    """
    folder = Path(folder)
    if folder.is_file():
        raise DataError(
            f"dataset {dataset!r}: {folder} is a file; dataset.path names a folder with audio files.\n"
            f"  Set dataset.path={folder.parent}, or another folder."
        )
    if not folder.is_dir():
        raise DataError(
            f"dataset {dataset!r}: there is no folder {folder}.\n"
            "  Set dataset.path (relative to paths.data_dir), or prepare the data: "
            "`python preprocess/musdb18stereo_wav.py` (--sample makes a small one that needs no download)."
        )
    if (folder / "train").is_dir():
        return {split: _subfolder(folder, split, dataset) for split in SPLITS}
    files = find_audio(folder)
    if any((folder / name).is_file() for name in LISTS.values()):
        return _by_lists(folder, files, dataset)
    if len(files) < 3:
        raise DataError(
            f"dataset {dataset!r}: {folder} holds {len(files)} audio files ({', '.join(AUDIO_SUFFIXES)}); a split by "
            "file needs at least 3.\n"
            "  Cut longer files into several, or make subfolders train/, valid/ and test/ with one file or more each."
        )
    train, valid = split_points(len(files), train_percentage)
    return {"train": files[:train], "valid": files[train:valid], "test": files[valid:]}


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
                f"dataset {dataset!r}: the lists in {folder} leave no audio file ({', '.join(AUDIO_SUFFIXES)}) for "
                f"{split}, of {len(files)} in all.\n"
                f"  Their lines are paths relative to {folder}, as in `zero/0a7c2a8d_nohash_0.wav`."
            )
    return found


def _subfolder(folder: Path, split: str, dataset: str) -> list[Path]:
    names: Sequence[str] = ("valid", "val") if split == "valid" else (split,)
    present = [folder / name for name in names if (folder / name).is_dir()]
    if len(present) > 1:
        raise DataError(f"dataset {dataset!r}: {folder} has both valid/ and val/; keep one of them.")
    files = find_audio(present[0]) if present else []
    if not files:
        state = "is empty" if present else "is missing"
        raise DataError(
            f"dataset {dataset!r}: {folder} has train/, so its subfolders are the split, but {split}/ {state}.\n"
            f"  Put audio files ({', '.join(AUDIO_SUFFIXES)}) into {folder / split}, or re-run the preprocess command."
        )
    return files
