"""Refuse misspelt keys, and values of a wrong type, by the full name of their key, before anything is made."""

import inspect
import os
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from stereo_sashimi.interop.s4_config import refuse_names
from stereo_sashimi.schema import check_type, refuse_unknown

# Sections without a `_target_`, and the keys that the app reads from them.
PLAIN = {
    "train": (
        *("seed", "monitor", "mode", "train_chunk_size", "val_chunk_size", "test", "validate_before", "on_nan"),
        *("carry_state",),
    ),
    "loader": ("batch_size", "num_workers", "pin_memory", "persistent_workers"),
    "paths": ("data_dir", "runs", "run"),
    "backend": ("name",),
}
TRAIN_SECTIONS = (
    *PLAIN,
    *("resume", "checkpoint", "init_from", "dataset", "task", "encoder", "model", "decoder", "experts"),
    *("optimizer", "scheduler"),
    *("trainer", "callbacks", "logger", "compile", "activation_checkpointing"),
)


def check_keys(cfg: DictConfig, sections: Sequence[str] = TRAIN_SECTIONS) -> None:
    """Raise ValueError with the full name of the first key that nothing reads."""
    # Unresolved: an interpolation or a missing value (`???`) is a value like any other here.
    plain = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(plain, dict)
    refuse_names({str(key): value for key, value in plain.items()})
    refuse_unknown({str(key): value for key, value in plain.items()}, sections, "")
    for section, allowed in PLAIN.items():
        refuse_unknown(plain.get(section, {}), allowed, section)
    for where, node, target in _targets(plain):
        parameters = inspect.signature(target).parameters
        if all(p.kind is not inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
            refuse_unknown({key: None for key in node if not str(key).startswith("_")}, list(parameters), where)


def _targets(node: object, where: str = "") -> Iterator[tuple[str, dict[Any, Any], Any]]:
    """Every mapping with a `_target_` under `node`: its full name, itself, and what the target names."""
    if isinstance(node, dict):
        if node.get("_target_") is not None:
            yield where, node, get_object(node["_target_"])
        for key, child in node.items():
            yield from _targets(child, f"{where}.{key}" if where else str(key))


def check_values(cfg: DictConfig) -> None:
    """Raise ValueError naming the first key that has no value, or one of another type than its reader takes.

    The types are the annotations of what `_target_` names; an annotation that `check_type` does not know (a class of
    Lightning, say) is left to the constructor.
    """
    # Here, so that commands which train nothing do not wait for Lightning.
    from stereo_sashimi.data.datamodule import AudioDataModule
    from stereo_sashimi.tasks import AutoregressiveTask

    plain: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=False)
    # Sections without a `_target_` are arguments of these two.
    hints = _hints(AutoregressiveTask) | _hints(AudioDataModule) | {"test": bool, "validate_before": bool}
    for section in ("loader", "train"):
        _check(plain.get(section, {}), hints, section)
    for name in ("compile", "activation_checkpointing"):
        check_type(plain[name], bool, name)
    for where, node, target in _targets(plain):
        _check(node, _hints(target), where)
    _check_monitor(plain["train"]["monitor"], plain["task"]["metrics"])
    trainer = plain.get("trainer", {})
    _check_accelerator(trainer.get("accelerator"))
    if trainer.get("accumulate_grad_batches", 1) < 1:
        raise ValueError(
            f"trainer.accumulate_grad_batches must be at least 1; got {trainer['accumulate_grad_batches']}."
        )
    if plain["compile"] and plain["backend"]["name"] in ("reference", "keops"):
        raise ValueError(
            f"compile=true cannot look into backend={plain['backend']['name']}. Use backend=auto, or compile=false."
        )
    if plain["compile"] and not plain["dataset"]["drop_last"]:
        raise ValueError(
            "compile=true needs clips of one length, but dataset.drop_last=false keeps shorter ones. Set "
            "dataset.drop_last=true, or compile=false."
        )
    for key in ("overfit_batches", "use_distributed_sampler"):
        if plain["train"]["carry_state"] and trainer.get(key):
            raise ValueError(
                f"train.carry_state=true walks through whole tracks; trainer.{key}={trainer[key]} puts other batches "
                f"there. Set train.carry_state=false, or trainer.{key}={'0' if key[0] == 'o' else 'false'}."
            )
    if plain["train"]["validate_before"] and trainer.get("limit_val_batches") == 0:
        raise ValueError(
            "train.validate_before=true validates before and after training, but trainer.limit_val_batches=0 leaves "
            "nothing to validate. Set train.validate_before=false too."
        )


def make_folder(path: str | Path, key: str) -> Path:
    """The folder that `key` names, made with its parents. Raises ValueError where that cannot be done."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"{key}={folder} cannot be made: {error.strerror}. Give a folder that can be written: {key}=<folder>."
        ) from error
    check_writable(folder, key)
    return folder


def check_writable(folder: Path, key: str) -> None:
    """Raise ValueError naming `key` unless files can be made in a folder, which is seen before the work is done."""
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"Nothing can be written into {folder}: it is read-only. Give another folder with {key}=..")


def _check(values: Mapping[Any, Any], hints: Mapping[str, Any], where: str) -> None:
    for key, value in values.items():
        if value == "???":
            raise ValueError(f"{where}.{key} has no value. Set it: {where}.{key}=..")
        if key not in hints or isinstance(value, dict):
            continue
        try:
            check_type(value, hints[key], f"{where}.{key}")
        except TypeError:
            continue


def _check_accelerator(name: object) -> None:
    # Here, as with Lightning above.
    import torch

    if name == "mps" or (name == "gpu" and torch.backends.mps.is_available()):
        raise ValueError(
            f"trainer.accelerator={name}: Apple's GPUs (MPS) have no float64, in which S4 layers are discretised. Use "
            "trainer=cpu, or trainer=default, which takes the CPU there."
        )
    if name in ("gpu", "cuda") and not torch.cuda.is_available():
        raise ValueError(
            f"trainer.accelerator={name} needs a GPU, and torch {torch.__version__} finds none. Use trainer=cpu, or "
            "trainer=default, which takes what there is."
        )


def _check_monitor(monitor: str, metrics: Sequence[str]) -> None:
    names = ["loss", "bits_per_sample", *metrics]
    split, _, name = monitor.partition("/")
    if split not in ("val", "train") or re.sub(r"/(left|right)$", "", name) not in names:
        measured = ", ".join(f"val/{name}" for name in dict.fromkeys(names))
        raise ValueError(f"train.monitor={monitor} is not measured; there are {measured}, and more with task.metrics.")


def _hints(target: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(target.__init__)
    except NameError:
        # Some loggers of Lightning import what they annotate with only for type checkers.
        return {}
