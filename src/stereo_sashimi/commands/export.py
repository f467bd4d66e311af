"""Export a trained model to a folder of safetensors and JSON, to be kept or passed on.

python -m stereo_sashimi.export checkpoint=RUN|FILE [out=FOLDER] [overwrite=true]

checkpoint   a run folder (its best weights, or the last where no validation ran) or a .ckpt file of a run
out          folder to write model.safetensors and config.json to (default: export/ in the run folder)
overwrite    replace an exported model that is in the folder (default: false)
"""

import argparse
import json
from pathlib import Path
from typing import Any

from stereo_sashimi.commands.shared.errors import speak
from stereo_sashimi.commands.shared.recover import offering
from stereo_sashimi.commands.shared.runs import STATUS_FILE, find_checkpoint, relative, run_folder
from stereo_sashimi.models.checkpoint import model_of, read
from stereo_sashimi.models.exported import Training, save
from stereo_sashimi.schema import refuse_unknown

KEYS = ("checkpoint", "out", "overwrite")


def export(checkpoint: str, out: str | None = None, overwrite: bool = False) -> Path:
    """Write the model of a run or .ckpt file as a folder that `stereo_sashimi.load` takes; returns the folder."""
    path = find_checkpoint(checkpoint, "")
    if path.suffix == ".safetensors":
        raise ValueError(f"{checkpoint} is an exported model already. Give a run folder or a .ckpt file.")
    with offering(path):
        content = read(path)
    folder = Path(out) if out is not None else run_folder(path) / "export"
    return save(model_of(content, path), folder, training=_training(content, path), overwrite=overwrite)


def _training(content: dict[str, Any], path: Path) -> Training:
    """What the checkpoint and the run.json of its run tell."""
    steps = content.get("global_step")
    return Training(
        steps=steps if isinstance(steps, int) else None,
        validation_bits_per_sample=_validation_bits(path),
        checkpoint=path.name,
    )


def _validation_bits(path: Path) -> float | None:
    """The number of run.json, if it was measured with this very checkpoint."""
    status = run_folder(path) / STATUS_FILE
    if not status.is_file():
        return None
    try:
        run = json.loads(status.read_text())
        measured = run.get("best") or run.get("last")
        if "validation_after" not in run or measured is None or Path(measured).name != path.name:
            return None
        return float(run["validation_after"]["val/bits_per_sample"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{status} is damaged ({error!r}). Remove it to export without its numbers.") from error


def parse(words: list[str]) -> dict[str, Any]:
    """The keyword arguments of `export` from `key=value` words; raises ValueError for any other word."""
    given: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        refuse_unknown({key: value}, KEYS, "export")
        if not equals or not value:
            raise ValueError(f"{word!r} must be {key}=<value>. See python -m stereo_sashimi.export --help.")
        if key in given:
            raise ValueError(f"{key}= is given twice.")
        given[key] = value
    if "checkpoint" not in given:
        raise ValueError("checkpoint= is missing: python -m stereo_sashimi.export checkpoint=runs/<run>.")
    if given.get("overwrite", "false") not in ("true", "false"):
        raise ValueError(f"overwrite must be true or false; got {given['overwrite']!r}.")
    return given | {"overwrite": given.get("overwrite") == "true"}


@speak
def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m stereo_sashimi.export",
        usage="%(prog)s checkpoint=RUN|FILE [out=FOLDER] [overwrite=true]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    folder = export(**parse(parser.parse_args(arguments).words))
    print(f"{relative(folder)}  load it with stereo_sashimi.load({str(relative(folder))!r})")
