"""Which file a path stands for: a file, an exported model, a run, or a folder of runs. Without torch, to be quick."""

import difflib
import json
import sys
from pathlib import Path

from stereo_sashimi.models.model_files import EXPORTED, HUB
from stereo_sashimi.models.model_files import CheckpointError as CheckpointError
from stereo_sashimi.pretrained import MODELS

STATUS_FILE = "run.json"
CHECKPOINTS = ("checkpoints/best.ckpt", "checkpoints/last.ckpt")


def model_file(given: str | Path, key: str = "checkpoint") -> Path:
    """The file that holds the model which `given` names: a .ckpt file, or the weights of an exported model.

    - `given`: a file, an exported model's folder, the name of a shipped model, a run, a folder of runs, or
      `hub:user/name@revision`, which is fetched from the Hugging Face Hub.
    - `key`: what it is called in messages.

    Of a run the best weights are taken, or the last where no validation ran; of a folder of runs the newest finished
    run, which a line on standard error names. Raises CheckpointError.
    """
    if str(given).startswith(HUB):
        # Here, as it knows torch.
        from stereo_sashimi.models.hub import fetch

        return fetch(str(given).removeprefix(HUB))
    path = MODELS.get(str(given), Path(given))
    if not path.exists():
        names = {name: name for name in MODELS} | {other.name: str(other) for other in path.parent.glob("*")}
        close = difflib.get_close_matches(path.name, list(names), n=1)
        hint = f"Did you mean {names[close[0]]}?" if close else f"Give a .ckpt file or a run folder: {key}=runs/<run>."
        raise CheckpointError(f"There is no checkpoint {given}. {hint}")
    if not path.is_dir():
        return path
    if (found := _inside(path)) is not None:
        return found
    newest, others = _newest(path)
    if newest is None:
        raise CheckpointError(
            f"{path} holds no model: no {', '.join((EXPORTED[0], *CHECKPOINTS))}, and no finished run with one of "
            f"them{others}. Give a run folder, an exported model or a .ckpt file: {key}=runs/<run>."
        )
    print(f"{path}: its newest finished run is taken, {newest.relative_to(path)}", file=sys.stderr, flush=True)
    return newest


def newest_model(runs: Path, key: str = "checkpoint") -> Path:
    """The model file of the newest finished run under `runs` that has one. Raises CheckpointError."""
    newest, others = _newest(runs)
    if newest is None:
        raise CheckpointError(
            f"There is no finished run under {runs}/{others}. Train one (python train.py "
            f"experiment=audio/sashimi-sample), name one ({key}=runs/<run>), or take the shipped model "
            f"({key}=pretrained)."
        )
    return newest


def finished_runs(runs: Path) -> tuple[list[Path], str]:
    """Run folders under `runs` whose run.json says that they finished, newest first; and a few words on the others."""
    finished, others = [], []
    for path in runs.rglob(STATUS_FILE):
        try:
            status = json.loads(path.read_text())["status"]
        except (ValueError, LookupError, TypeError, OSError, RecursionError):
            status = f"{STATUS_FILE} is damaged"
        if status == "finished":
            finished.append((path.stat().st_mtime_ns, path.parent))
        else:
            others.append(f"{path.parent.relative_to(runs)}: {status}")
    shown = ", ".join(sorted(others)[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
    return [run for _, run in sorted(finished, reverse=True)], f" ({shown})" if others else ""


def _newest(runs: Path) -> tuple[Path | None, str]:
    finished, others = finished_runs(runs)
    return next((path for run in finished if (path := _inside(run)) is not None), None), others


def _inside(folder: Path) -> Path | None:
    """The model file of an exported model or a run."""
    if (folder / EXPORTED[0]).is_file():
        return folder / EXPORTED[1]
    return next((folder / name for name in CHECKPOINTS if (folder / name).is_file()), None)
