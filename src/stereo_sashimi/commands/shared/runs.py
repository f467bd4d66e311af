"""Finding checkpoints in run folders: a run is `finished` when its run.json says so."""

import difflib
import json
from pathlib import Path

from stereo_sashimi.pretrained import FOLDER as PRETRAINED_FOLDER
from stereo_sashimi.pretrained import NAME as PRETRAINED

STATUS_FILE = "run.json"
# The names of models/exported.py, which is not imported here: a report should not wait for torch.
EXPORTED = ("config.json", "model.safetensors")


def find_checkpoint(given: str | None, runs: str, key: str = "checkpoint") -> Path:
    """The file that the user means: a .ckpt, or the weights of an exported model.

    - `given`: a file, a run folder, an exported model's folder, `pretrained` for the shipped model, or None for the
      newest finished run under `runs`.
    - `key`: what it is called in messages.

    Of a run folder the best weights are taken, or the last where no validation ran. Raises ValueError.
    """
    if given is None:
        return _of_run(newest_finished(Path(runs)))
    # A name of digits reaches us as a number.
    path = PRETRAINED_FOLDER if given == PRETRAINED else Path(str(given))
    if (path / EXPORTED[0]).is_file():
        return path / EXPORTED[1]
    if path.is_dir():
        return _of_run(path)
    if not path.is_file():
        names = {PRETRAINED: PRETRAINED} | {other.name: str(other) for other in path.parent.glob("*")}
        close = difflib.get_close_matches(path.name, list(names), n=1)
        hint = f"Did you mean {names[close[0]]}?" if close else f"Give a .ckpt file or a run folder: {key}=runs/<run>."
        raise ValueError(f"There is no checkpoint {given}. {hint}")
    return path


def run_folder(checkpoint: Path) -> Path:
    """The run that a checkpoint belongs to: the folder above `checkpoints/`, else the checkpoint's own folder."""
    parent = checkpoint.resolve().parent
    return parent.parent if parent.name == "checkpoints" else parent


def results_folder(checkpoint: Path, runs: str) -> Path:
    """Where what is made with a checkpoint belongs: its run; for the shipped model a folder under `runs`."""
    return Path(runs) / PRETRAINED if checkpoint.parent == PRETRAINED_FOLDER else run_folder(checkpoint)


def name_of(checkpoint: Path) -> str:
    """What a person would write after `checkpoint=`."""
    return PRETRAINED if checkpoint.parent == PRETRAINED_FOLDER else relative(checkpoint)


def relative(path: Path) -> str:
    """As short as a person would type it from here."""
    path = path.resolve()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _of_run(folder: Path) -> Path:
    for name in ("best.ckpt", "last.ckpt"):
        path = folder / "checkpoints" / name
        if path.is_file():
            return path
    raise ValueError(
        f"{folder} holds no checkpoints/best.ckpt or checkpoints/last.ckpt. Give another run or a .ckpt file."
    )


def newest_finished(runs: Path) -> Path:
    """The newest run folder under `runs` whose run.json says that it finished. Raises ValueError if there is none."""
    finished = []
    for status in runs.rglob(STATUS_FILE):
        try:
            if json.loads(status.read_text()).get("status") == "finished":
                finished.append((status.stat().st_mtime_ns, status.parent))
        except (ValueError, AttributeError, OSError):
            continue
    if not finished:
        raise ValueError(
            f"There is no finished run under {runs}/. Train one (python train.py experiment=audio/sashimi-sample), "
            "name one (checkpoint=runs/<run>), or take the shipped model (checkpoint=pretrained)."
        )
    return max(finished)[1]
