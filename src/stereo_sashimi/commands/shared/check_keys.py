"""Refuse misspelt keys: every key of a composed config must be one that something reads."""

import dataclasses
import inspect
from collections.abc import Sequence

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from stereo_sashimi.commands.seed_config import refuse_names
from stereo_sashimi.schema import refuse_unknown

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
    *("checkpoint", "init_from", "dataset", "task", "encoder", "model", "decoder", "optimizer", "scheduler", "trainer"),
    *("callbacks", "logger", "compile", "activation_checkpointing"),
)


def check_keys(cfg: DictConfig, sections: Sequence[str] = TRAIN_SECTIONS) -> None:
    """Raise ValueError with the full name of the first key that nothing reads."""
    # Unresolved: an interpolation or a missing value (`???`) is a value like any other here.
    plain = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(plain, dict)
    refuse_names({str(key): value for key, value in plain.items()})
    refuse_unknown({str(key): value for key, value in plain.items()}, sections, "config")
    for section, node in plain.items():
        if section in PLAIN:
            refuse_unknown(node, PLAIN[str(section)], str(section))
        else:
            _check_node(node, str(section))


def _check_node(node: object, where: str) -> None:
    if not isinstance(node, dict):
        return
    target = node.get("_target_")
    allowed = _arguments(target) if target is not None else None
    if allowed is not None:
        refuse_unknown({key: None for key in node if not str(key).startswith("_")}, allowed, where)
    for key, child in node.items():
        _check_node(child, f"{where}.{key}")


def _arguments(target: str) -> list[str] | None:
    """Names that a target accepts, None if it takes anything."""
    thing = get_object(target)
    if dataclasses.is_dataclass(thing):
        return [f.name for f in dataclasses.fields(thing)]
    parameters = inspect.signature(thing).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return None
    return list(parameters)
