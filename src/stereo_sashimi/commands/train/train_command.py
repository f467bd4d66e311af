"""`train.py`: data, model, Lightning; leaves checkpoints, logs and run.json in the run folder."""

import logging
import math
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig

from stereo_sashimi.commands.shared.checks import check_keys, check_values, make_folder
from stereo_sashimi.commands.shared.errors import as_typed
from stereo_sashimi.commands.shared.loading import offering
from stereo_sashimi.commands.shared.runs import find_checkpoint, relative
from stereo_sashimi.commands.train.allocator import keep_freed_memory
from stereo_sashimi.commands.train.build import build_datamodule, build_model_config, build_task, build_trainer
from stereo_sashimi.commands.train.header import header
from stereo_sashimi.commands.train.resume import LAST, check_resume, last_checkpoint, resume_command
from stereo_sashimi.commands.train.stopping import check_sigterm, stoppable, write_status
from stereo_sashimi.commands.train.sweep import check_sweep, objective
from stereo_sashimi.data.datamodule import AudioDataModule
from stereo_sashimi.models.checkpoint import load
from stereo_sashimi.models.warm_start import warm_start
from stereo_sashimi.tasks import AutoregressiveTask
from stereo_sashimi.tasks.checkpoints import BestCheckpoint, LastCheckpoint
from stereo_sashimi.tasks.ema import EMA
from stereo_sashimi.tasks.lightning_internals import find
from stereo_sashimi.tasks.nan_guard import NonFiniteGuard


def run(cfg: DictConfig) -> float | None:
    """Train as `cfg` says. Returns the best validation number, for sweeps."""
    return objective(train(cfg))


def train(cfg: DictConfig) -> dict[str, Any]:
    """Train as `cfg` says. Returns what run.json holds: status, validation before and after, checkpoints."""
    check_keys(cfg)
    check_values(cfg)
    _quiet()
    checkpoint = None if cfg.checkpoint is None else str(last_checkpoint(str(cfg.checkpoint)))
    datamodule = build_datamodule(cfg)
    datamodule.setup("fit")
    # The data module has checked the seed and draws nothing from the global generators.
    pl.seed_everything(cfg.train.seed, workers=True, verbose=False)
    config = build_model_config(cfg, datamodule)
    task = build_task(cfg, config, datamodule)
    if str(cfg.trainer.precision) == "64-true":
        # Lightning widens the weights after it has loaded a checkpoint, whose last digits are then gone.
        task.double()
    keep_freed_memory(task.model, datamodule.batch_size * datamodule.sample_len)
    source = _initialise(cfg, task)
    trainer = build_trainer(cfg)
    check_sweep(trainer)
    begun = "" if source is None else f"  initialised from {source}"
    if checkpoint is not None:
        begun = f"  resumed from {relative(Path(checkpoint))} at step {check_resume(checkpoint, task, trainer)}"
    ema = find(trainer, EMA)
    folder = make_folder(cfg.paths.run, "paths.run")
    if trainer.is_global_zero:
        print(
            header(
                task,
                datamodule,
                backend=cfg.backend.name,
                device=str(trainer.strategy.root_device),
                precision=str(trainer.precision),
                run=relative(folder) + begun,
                seed=cfg.train.seed,
                resume=resume_command(folder / LAST),
                ema=None if ema is None else ema.decay,
            ),
            flush=True,
        )
    result: dict[str, Any] = {
        "status": "running",
        "model": config.to_plain(),
        "ema": None if ema is None else ema.decay,
        "run": relative(folder),
        "init_from": source,
    }
    write_status(trainer, folder, result)
    with stoppable(trainer, folder, result, checkpoint):
        _train(cfg, trainer, task, datamodule, result, checkpoint)
    write_status(trainer, folder, result)
    if trainer.is_global_zero:
        print(summary(result), flush=True)
    return result


def _initialise(cfg: DictConfig, task: AutoregressiveTask) -> str | None:
    """Give the model the weights that `init_from` names, and return the file; None where there is none to take."""
    if cfg.init_from is None or cfg.checkpoint is not None:
        return None
    path = find_checkpoint(str(cfg.init_from), cfg.paths.runs, "init_from")
    with offering(path, "init_from"):
        warm_start(task.model, load(path))
    return relative(path)


def _train(
    cfg: DictConfig,
    trainer: pl.Trainer,
    task: AutoregressiveTask,
    datamodule: AudioDataModule,
    result: dict[str, Any],
    checkpoint: str | None,
) -> None:
    """Fit, with the validations and the test that are asked for; their numbers go into `result`."""
    if cfg.train.validate_before and checkpoint is None:
        result["validation_before"] = _validate(trainer, task, datamodule, None)
    trainer.fit(task, datamodule=datamodule, ckpt_path=checkpoint, weights_only=True)
    check_sigterm(trainer)
    keeper, last, guard = find(trainer, BestCheckpoint), find(trainer, LastCheckpoint), find(trainer, NonFiniteGuard)
    best = "" if keeper is None else keeper.best_model_path
    result["last"] = None if last is None or last.saved is None else relative(last.saved)
    result["best"] = relative(Path(best)) if best else None
    result["best_score"] = best_score(keeper)
    result["steps"] = trainer.global_step
    result["skipped_steps"] = 0 if guard is None else guard.skipped
    train = {name: float(v) for name, v in trainer.callback_metrics.items() if name.startswith("train/")}
    # JSON has no NaN, which is what a skipped step may have left here.
    result["train"] = {name: value if math.isfinite(value) else None for name, value in train.items()}
    if cfg.train.validate_before:
        result["validation_after"] = _validate(trainer, task, datamodule, best or None)
    if cfg.train.test:
        result["test"] = _numbers(
            trainer.test(task, datamodule=datamodule, ckpt_path=best or None, verbose=False, weights_only=True)
        )
        check_sigterm(trainer)
    result["status"] = "finished"


def best_score(keeper: BestCheckpoint | None) -> float | None:
    """The best validated `train.monitor`, which sweeps compare; None where nothing was validated."""
    score = None if keeper is None else keeper.best_model_score
    return float(score) if score is not None and bool(score.isfinite()) else None


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
    if result["skipped_steps"]:
        lines.append(f"{result['skipped_steps']} of {result['steps']} steps were left out by train.on_nan=skip")
    saved = result["best"] or result["last"]
    hint = as_typed(f"sample with: python generate.py checkpoint={result['run']}") if saved else "nothing was saved"
    lines.append(f"finished after {result['steps']} steps; {hint}")
    return "\n".join(lines)


def _validate(trainer: pl.Trainer, task: Any, datamodule: Any, ckpt_path: str | None) -> dict[str, float]:
    results = trainer.validate(task, datamodule=datamodule, ckpt_path=ckpt_path, verbose=False, weights_only=True)
    check_sigterm(trainer)
    return _numbers(results)


def _numbers(results: Any) -> dict[str, float]:
    return {name: float(value) for result in results for name, value in result.items()}


def _quiet() -> None:
    """Leave the screen to the header and the step lines."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",
        ".*smaller than the logging interval.*",
        ".*LeafSpec.*",
        # With compile=true complex numbers (discretisation, spectra) stay calls of torch between the fused loops.
        ".*does not support code generation for complex operators.*",
        # Validation totals are summed over processes before they are logged.
        ".*sync_dist=True.*",
    ):
        warnings.filterwarnings("ignore", message)
