"""`train.py`: data, model, Lightning; leaves checkpoints, logs and run.json in the run folder."""

import json
import logging
import shlex
import sys
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.trainer.states import TrainerStatus

from stereo_sashimi.app.build import build_datamodule, build_model_config, build_task, build_trainer
from stereo_sashimi.app.check import check_keys
from stereo_sashimi.app.header import header
from stereo_sashimi.app.runs import STATUS_FILE, relative
from stereo_sashimi.audio.io import write_whole
from stereo_sashimi.data.datamodule import AudioDataModule
from stereo_sashimi.models import checkpoint as checkpoints
from stereo_sashimi.tasks import AutoregressiveTask

# What may differ when a run is resumed: it changes what is reported, not what is trained.
RESUMABLE = ("metrics",)
LAST = Path("checkpoints", "last.ckpt")


def run(cfg: DictConfig) -> dict[str, Any]:
    """Train as `cfg` says. Returns what run.json holds: status, validation before and after, checkpoints."""
    check_keys(cfg)
    _quiet()
    datamodule = build_datamodule(cfg)
    datamodule.setup("fit")
    # The data module has checked the seed and draws nothing from the global generators.
    pl.seed_everything(cfg.train.seed, workers=True, verbose=False)
    config = build_model_config(cfg, datamodule)
    task = build_task(cfg, config, datamodule)
    if cfg.checkpoint is not None:
        _check_resume(cfg.checkpoint, task)
    trainer = build_trainer(cfg)
    folder = Path(cfg.paths.run)
    folder.mkdir(parents=True, exist_ok=True)
    if trainer.is_global_zero:
        print(
            header(
                task,
                datamodule,
                backend=cfg.backend.name,
                device=str(trainer.strategy.root_device),
                precision=str(trainer.precision),
                run=relative(folder),
                seed=cfg.train.seed,
                resume=_resume_command(folder),
            ),
            flush=True,
        )
    result: dict[str, Any] = {"status": "running", "model": config.to_plain()}
    _write(trainer, folder, result)
    if cfg.train.validate_before and cfg.checkpoint is None:
        result["validation_before"] = _validate(trainer, task, datamodule, None)
    _fit(trainer, task, datamodule, cfg.checkpoint, folder, result)
    best = next((c.best_model_path for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)), "")
    last = folder / LAST
    result["last"] = relative(last) if last.is_file() else None
    result["best"] = relative(Path(best)) if best else None
    result["run"] = relative(folder)
    result["steps"] = trainer.global_step
    result["train"] = {name: float(v) for name, v in trainer.callback_metrics.items() if name.startswith("train/")}
    if cfg.train.validate_before:
        result["validation_after"] = _validate(trainer, task, datamodule, best or None)
    if cfg.train.test:
        result["test"] = _numbers(
            trainer.test(task, datamodule=datamodule, ckpt_path=best or None, verbose=False, weights_only=True)
        )
    result["status"] = "finished"
    _write(trainer, folder, result)
    if trainer.is_global_zero:
        print(summary(result), flush=True)
    return result


def _fit(
    trainer: pl.Trainer,
    task: AutoregressiveTask,
    datamodule: AudioDataModule,
    checkpoint: str | None,
    folder: Path,
    result: dict[str, Any],
) -> None:
    """Train; a run that stops early says so in run.json, and after Ctrl-C how to go on."""
    try:
        trainer.fit(task, datamodule=datamodule, ckpt_path=checkpoint, weights_only=True)
    except BaseException as error:
        # Lightning turns Ctrl-C into SystemExit after its callbacks have saved.
        interrupted = isinstance(error, SystemExit) and trainer.state.status == TrainerStatus.INTERRUPTED
        result |= {"status": "interrupted" if interrupted else "failed", "steps": trainer.global_step}
        _write(trainer, folder, result)
        if not interrupted:
            raise
        if trainer.is_global_zero:
            go_on = f"Go on with: {_resume_command(folder)}" if (folder / LAST).is_file() else "Nothing was saved yet."
            print(f"\nInterrupted after {trainer.global_step} steps. {go_on}", file=sys.stderr)
        raise SystemExit(130) from None


def summary(result: dict[str, Any]) -> str:
    """The last lines of a run."""
    lines = []
    if "validation_before" in result and "validation_after" in result:
        before, after = (result[f"validation_{when}"]["val/bits_per_sample"] for when in ("before", "after"))
        lines += [
            f"validation before training  {before:.3f} bits/sample",
            f"validation after training   {after:.3f} bits/sample  ({before - after:.3f} lower)",
        ]
    if "test" in result:
        lines.append(f"test  {result['test']['test/bits_per_sample']:.3f} bits/sample")
    lines.append(f"finished after {result['steps']} steps; sample with: python generate.py checkpoint={result['run']}")
    return "\n".join(lines)


def _validate(trainer: pl.Trainer, task: Any, datamodule: Any, ckpt_path: str | None) -> dict[str, float]:
    return _numbers(
        trainer.validate(task, datamodule=datamodule, ckpt_path=ckpt_path, verbose=False, weights_only=True)
    )


def _numbers(results: Any) -> dict[str, float]:
    return {name: float(value) for result in results for name, value in result.items()}


def _write(trainer: pl.Trainer, folder: Path, result: dict[str, Any]) -> None:
    if trainer.is_global_zero:
        write_whole(folder / STATUS_FILE, (json.dumps(result, indent=2) + "\n").encode())


def _check_resume(path: str, task: AutoregressiveTask) -> None:
    """Raise ValueError that names the first field in which a checkpoint and this run disagree."""
    saved, ours = (_flat(h) for h in (checkpoints.read(path)["hyper_parameters"], dict(task.hparams)))
    for name in ours | saved:
        value = ours.get(name)
        if saved.get(name) != value and name not in RESUMABLE:
            section = name.removeprefix("model.").split(".")[0]
            group = {"spec": "dataset", "pad_len": "dataset", "context_len": "dataset"}.get(section, section)
            raise ValueError(
                f"checkpoint {path} was trained with {name.removeprefix('model.')}={saved.get(name)!r}; this run has "
                f"{value!r}. Match `{group}` to the run that wrote it."
            )


def _flat(fields: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested fields under dotted names; sequences as lists."""
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = list(value) if isinstance(value, tuple) else value
    return flat


def _resume_command(folder: Path) -> str:
    overrides = list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []
    overrides = [o for o in overrides if not o.startswith("checkpoint=")]
    last = relative(folder / LAST)
    return "python train.py " + " ".join(shlex.quote(o) for o in [*overrides, f"checkpoint={last}"])


def _quiet() -> None:
    """Leave the screen to the header and the step lines."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",
        ".*smaller than the logging interval.*",
        ".*LeafSpec.*",
        # Validation totals are summed over processes before they are logged.
        ".*sync_dist=True.*",
    ):
        warnings.filterwarnings("ignore", message)
