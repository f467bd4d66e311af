"""Going on with a run: what must be as it was, and the command that does it."""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from stereo_sashimi.commands.shared.errors import as_typed
from stereo_sashimi.commands.shared.loading import offering
from stereo_sashimi.commands.shared.overrides import override
from stereo_sashimi.commands.shared.runs import relative, run_folder
from stereo_sashimi.models import checkpoint as checkpoints
from stereo_sashimi.models.weights import check as check_weights
from stereo_sashimi.models.weights import describe
from stereo_sashimi.tasks import AutoregressiveTask
from stereo_sashimi.tasks.ema import EMA
from stereo_sashimi.tasks.lightning_internals import find

# What may differ when a run is resumed: it changes what is reported, not what is trained.
RESUMABLE = ("metrics",)
# What a checkpoint says that was written before there was such a field.
ABSENT = {"carry_state": False}
# Where a field is set, if that is not the section of its name.
GROUPS = {"spec": "dataset", "pad_len": "dataset", "context_len": "dataset", "carry_state": "train.carry_state"}
LAST = Path("checkpoints", "last.ckpt")
# Written by Hydra.
OVERRIDES = Path(".hydra", "overrides.yaml")


def check_resume(path: str, task: AutoregressiveTask, trainer: pl.Trainer) -> int:
    """The step that a checkpoint goes on from. Raises ValueError that names the first field in which the two disagree.

    A checkpoint that cannot be read raises CheckpointError, with the one to use instead if there is one.
    """
    with offering(path):
        content = checkpoints.read(path)
    config = describe(content["hyper_parameters"]["model"], path)
    saved, ours = (dict(_flat(h)) for h in (content["hyper_parameters"], dict(task.hparams)))
    for keys in ours | saved:
        value = ours.get(keys)
        before = saved.get(keys, ABSENT.get(keys[0]))
        if before != value and keys[0] not in RESUMABLE:
            keys = keys[1:] if keys[0] == "model" else keys
            group = GROUPS.get(str(keys[0]), keys[0])
            was = _cut(f"{'.'.join(map(str, keys))}={before!r}")
            raise ValueError(
                f"checkpoint {path} was trained with {was}; this run has {value!r}. Match `{_cut(str(group))}` to the "
                "run that wrote it."
            )
    prefix = "model."
    weights = {k.removeprefix(prefix): v for k, v in content["state_dict"].items() if str(k).startswith(prefix)}
    check_weights(config, weights, path)
    if lost := [part for part in ("optimizer_states", "lr_schedulers", "loops") if part not in content]:
        raise ValueError(
            f"checkpoint {path} has no {', '.join(lost)}: it can be sampled from, but not resumed. Give a last.ckpt."
        )
    _check_averaging(path, content, trainer)
    return int(content["global_step"])


def _check_averaging(path: str, content: dict[str, Any], trainer: pl.Trainer) -> None:
    ema = find(trainer, EMA)
    before = content.get("callbacks", {}).get("EMA", {}).get("decay")
    now = None if ema is None else ema.decay
    # Averaging may begin with a resume; it cannot end there, as the other weights are the averaged ones.
    if before is not None and now != before:
        raise ValueError(
            f"checkpoint {path} was trained with averaged weights (callbacks.ema.decay={before}); this run has "
            f"{'none' if now is None else now}. Resume with callbacks=ema callbacks.ema.decay={before}."
        )


def _flat(fields: dict[Any, Any], above: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """The keys that lead to each nested field, and its value; sequences as lists."""
    for key, value in fields.items():
        if isinstance(value, dict):
            yield from _flat(value, (*above, key))
        else:
            yield (*above, key), list(value) if isinstance(value, tuple) else value


def _cut(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:197]}..."


def with_saved_overrides(words: Sequence[str]) -> list[str]:
    """The command line without `resume=<run>`: what that run was started with, its last.ckpt, and the other words.

    A word replaces the saved one of its key. Raises ValueError where the folder is no run that `train.py` made.
    """
    given = [word.removeprefix("resume=") for word in words if word.startswith("resume=")]
    if not given or given[-1] == "null":
        return list(words)
    run = Path(given[-1].strip("\"'"))
    checkpoint, saved = last_checkpoint(run, "resume"), run / OVERRIDES
    if not saved.is_file():
        raise ValueError(
            f"resume={run}: there is no {saved}, which holds what the run was started with. Type that yourself: "
            f"python train.py <overrides> {override('checkpoint', str(checkpoint))}"
        )
    others = [word for word in words if not word.startswith("resume=")]
    replaced = {_key(word) for word in others} | {"checkpoint"}
    before: Any = OmegaConf.to_container(OmegaConf.load(saved))
    kept = [str(word) for word in before if _key(str(word)) not in replaced]
    return [*kept, override("checkpoint", str(checkpoint)), *others]


def _key(word: str) -> str:
    return word.split("=")[0].lstrip("+~").split("@")[0]


def last_checkpoint(given: str | Path, key: str = "checkpoint") -> Path:
    """The file to go on from: `given`, or the last.ckpt of a run folder. Raises ValueError if there is none."""
    path = Path(given)
    if path.is_dir():
        path = path / LAST
    if not path.is_file():
        raise ValueError(f"{key}={given}: there is no file {path}. Give a run folder or its checkpoints/last.ckpt.")
    return path


def resume_command(checkpoint: str | Path) -> str:
    """`python train.py resume=<run>`, or all overrides and `checkpoint=` where the run does not keep its overrides."""
    path = Path(checkpoint)
    run = run_folder(path)
    if path.name == LAST.name and (run / OVERRIDES).is_file():
        return as_typed("python train.py " + shlex.quote(override("resume", relative(run))))
    overrides = list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []
    overrides = [o for o in overrides if not o.startswith("checkpoint=")]
    overrides.append(override("checkpoint", relative(path)))
    return as_typed("python train.py " + " ".join(shlex.quote(o) for o in overrides))
