"""Runs and their checkpoints, as commands name and find them; what a path stands for is in models/locate.py."""

import os
from pathlib import Path

from stereo_sashimi.models.locate import STATUS_FILE as STATUS_FILE
from stereo_sashimi.models.locate import finished_runs, model_file, newest_model
from stereo_sashimi.models.model_files import EXPORTED as EXPORTED
from stereo_sashimi.models.model_files import HUB, origin
from stereo_sashimi.pretrained import MODELS


def find_checkpoint(given: str | None, runs: str, key: str = "checkpoint") -> Path:
    """The file that the user means: `model_file` of what is given, or that of the newest finished run under `runs`."""
    # A name of digits reaches us as a number.
    return newest_model(Path(runs), key) if given is None else model_file(str(given), key)


def newest_finished(runs: Path) -> Path:
    """The newest run folder under `runs` whose run.json says that it finished. Raises ValueError if there is none."""
    finished, others = finished_runs(runs)
    if not finished:
        raise ValueError(
            f"There is no finished run under {runs}/{others}. Train one (python train.py "
            "experiment=audio/sashimi-sample), or give its folder."
        )
    return finished[0]


def run_folder(checkpoint: Path) -> Path:
    """The run that a checkpoint belongs to: the folder above `checkpoints/`, else the checkpoint's own folder."""
    parent = checkpoint.resolve().parent
    return parent.parent if parent.name == "checkpoints" else parent


def results_folder(checkpoint: Path, runs: str) -> Path:
    """Where what is made with a checkpoint belongs: its run; for one that is not ours a folder under `runs`."""
    name = folder_name(checkpoint)
    return run_folder(checkpoint) if name is None else Path(runs) / name


def folder_name(checkpoint: Path) -> str | None:
    """For what is made with a shipped model or one of the Hub, which have no folder to write to; None for others."""
    fetched = origin(checkpoint)
    return _shipped(checkpoint) if fetched is None else fetched.partition("@")[0].replace("/", "--")


def name_of(checkpoint: Path) -> str:
    """What a person would write after `checkpoint=`."""
    fetched = origin(checkpoint)
    return f"{HUB}{fetched}" if fetched else _shipped(checkpoint) or relative(checkpoint)


def _shipped(checkpoint: Path) -> str | None:
    """The name of a shipped model; None for others."""
    return next((name for name, folder in MODELS.items() if checkpoint.parent == folder), None)


def relative(path: Path) -> str:
    """As short as a person would type it from here."""
    path = path.resolve()
    return shown(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def shown(name: str | Path) -> str:
    """A file name that can be printed and kept anywhere: bytes that are not UTF-8 are written as `\xff`."""
    return os.fsencode(name).decode(errors="backslashreplace")
