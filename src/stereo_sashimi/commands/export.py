"""Export a trained model to a folder of safetensors and JSON, to be kept or passed on.

The keys are in configs/export.yaml.
"""

import json
from pathlib import Path

from omegaconf import DictConfig

from stereo_sashimi.commands.shared.loading import offering
from stereo_sashimi.commands.shared.runs import STATUS_FILE, find_checkpoint, relative, run_folder
from stereo_sashimi.models.checkpoint import model_of, read
from stereo_sashimi.models.exported import Training, save
from stereo_sashimi.schema import check_type


def export(checkpoint: str, out: str | None = None, overwrite: bool = False) -> Path:
    """Write the model of a run or .ckpt file as a folder that `stereo_sashimi.load` takes; returns the folder."""
    path = find_checkpoint(checkpoint, "")
    if path.suffix == ".safetensors":
        raise ValueError(f"{checkpoint} is an exported model already. Give a run folder or a .ckpt file.")
    with offering(path):
        content = read(path)
    folder = Path(out) if out is not None else run_folder(path) / "export"
    steps = content.get("global_step")
    training = Training(
        steps=steps if isinstance(steps, int) else None,
        validation_bits_per_sample=_validation_bits(path),
        checkpoint=path.name,
    )
    return save(model_of(content, path), folder, training=training, overwrite=overwrite)


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


def run(cfg: DictConfig) -> None:
    """Export as `cfg` says."""
    overwrite = check_type(cfg.overwrite, bool, "overwrite")
    folder = export(str(cfg.checkpoint), None if cfg.out is None else str(cfg.out), overwrite)
    print(f"{relative(folder)}  load it with stereo_sashimi.load({str(relative(folder))!r})")
