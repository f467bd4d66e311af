"""Configs of the original S4 repository, and of its stereo fork -> ours: plain dicts in, plain dicts out.

Reading and writing YAML is the command's, `commands/translate.py`.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

COMMAND = "stereo-sashimi translate input=OLD.yaml"
Translation = tuple[list[str], dict[str, Any]]

# Old group -> old option -> ours. A data set may have any name.
OPTIONS = {
    "trainer": {"default": "default"},
    "loader": {"default": "default"},
    "task": {"multiclass_classification": "multiclass_classification"},
    "optimizer": {"adamw": "adamw"},
    "scheduler": {"plateau": "plateau", "cosine_warmup": "cosine_warmup"},
    "model": {"sashimi": "sashimi", "unet": "sashimi_unet"},
    "encoder": {"embedding": "embedding"},
    "decoder": {"sequence": "categorical", "dml": "dml"},
}
KEPT = {
    "dataset": "path bits sample_len train_percentage quantization drop_last context_len pad_len is_stereo",
    "model": "d_model n_layers pool expand ff dropout dropres",
    "model.layer": "d_state n_ssm dt_min dt_max dt_transform",
    "train": "seed monitor mode train_chunk_size val_chunk_size test",
    "task": "metrics",
    "loader": "batch_size num_workers pin_memory persistent_workers",
    "optimizer": "lr weight_decay betas",
    "scheduler": "patience factor min_lr",
    "trainer": "max_epochs max_steps limit_train_batches limit_val_batches limit_test_batches accelerator devices "
    "num_nodes strategy precision accumulate_grad_batches gradient_clip_val log_every_n_steps val_check_interval "
    "check_val_every_n_epoch num_sanity_val_steps overfit_batches",
}
MOVED = {
    "dataset.target_sr": "dataset.sample_rate",
    "scheduler.num_warmup_steps": "scheduler.warmup_steps",
    "scheduler.num_training_steps": "scheduler.total_steps",
    "trainer.gpus": "trainer.devices",
    "decoder.n_mixtures": "decoder.n_mixtures",
}
# What the original's groups say where an experiment is silent, and ours say otherwise.
DEFAULTS: dict[str, dict[str, dict[str, float]]] = {
    "optimizer": {"adamw": {"optimizer.lr": 0.001}},
    "loader": {"default": {"loader.batch_size": 50}},
    "trainer": {"default": {"trainer.max_epochs": 200}},
    "scheduler": {"cosine_warmup": {"scheduler.warmup_steps": 1000, "scheduler.total_steps": 40000}},
}
ANY = object()
# Key -> values that say what always holds here, and why; such a key is left out.
ALWAYS: dict[str, tuple[tuple[object, ...], str]] = {
    "dataset.__l_max": ((ANY,), "kernels need no longest length"),
    "dataset.interleaving_strategy": ((ANY,), "channels are an axis of one model, not a sequence in turns"),
    "decoder.mode": (("last", "full"), "every frame is predicted"),
    "encoder.mode": ((None,), "there is one kind"),
    "loader.drop_last": ((ANY,), "no clip is left out of an epoch; chunks have whole batches or a shorter last one"),
    "train.interval": ((ANY,), "each scheduler knows when it steps"),
    "model.prenorm": ((True,), "blocks normalise first"),
    "model.transposed": ((True,), "tensors are (batch, length, channels)"),
    "model.residual": (("R",), "residual branches are added"),
    "model.norm": (("layer",), "the model option chooses the norm"),
    "model.initializer": ((None,), "torch's own initialisation"),
    "model.interp": ((0,), "levels are not interpolated"),
    "model.act_pool": ((None,), "pools have no activation"),
    "model.pool_mode": (("linear",), "pools are linear"),
    "model.layer.mode": (("nplr", "dplr"), "the layer of model=sashimi"),
    "model.layer.init": (("legs",), "the layer of model=sashimi starts from HiPPO-LegS"),
    "model.layer.measure": (("legs", None), "the layer of model=sashimi starts from HiPPO-LegS"),
    "model.layer.l_max": ((ANY,), "kernels need no longest length"),
    "model.layer.rank": ((1,), "the layer of model=sashimi has rank one"),
}
# Key, or section -> what to use instead of it.
INSTEAD = {
    "dataset._name_": "only qautoaudio can be translated; for SC09 choose dataset=sc09",
    "model._name_": "choose the model in defaults: - /model: sashimi, or unet",
    "model.output_head": "write `decoder: dml`, or `decoder: sequence` for a categorical head",
    "model.n_mixtures": "write `decoder: {_name_: dml, n_mixtures: ..}`",
    "model.layer.mode": "for the diagonal layer take this key out, and run with model/layer=s4d",
    "model.layer.init": "for the diagonal layer take this key out, and run with model/layer=s4d model.layer.init=..",
    "model.layer.lr": "the rate of dt, Lambda, B and P is optimizer.ssm_lr",
    "train.ema": "averaged weights are a callback: run with callbacks=ema",
    "train.ckpt": "a run is resumed with checkpoint=<run>/checkpoints/last.ckpt",
    "train.pretrained_model_path": "read it with stereo_sashimi.interop.load_lightning",
    "wandb": "logger=wandb, its settings are logger.wandb.*",
    "callbacks": "callbacks have other names; see configs/callbacks",
    "hydra": "the run folder is paths.runs",
}


class SeedConfigError(ValueError):
    """YAML of the original that cannot be translated; the message names every such key and what to use instead."""


def translate(old: dict[str, Any], name: str = "mine") -> Translation:
    """An experiment or a data set of the original in our keys: comments for the top of the file, and settings.

    Args:
        old: A file of the original's configs/experiment or configs/dataset.
        name: Of the experiment, for the command in its first comment.

    Raises:
        SeedConfigError: The file is neither, or has keys or values without a counterpart.
    """
    if "_name_" in old:
        return _dataset(old)
    if isinstance(old.get("defaults"), list):
        return _experiment(old, name)
    raise SeedConfigError(
        "this is neither an experiment (with a list of `defaults`) nor a data set (with `_name_: qautoaudio`) of the "
        "original."
    )


def _dataset(old: dict[str, Any]) -> Translation:
    name = old.pop("_name_")
    problems = [] if name == "qautoaudio" else [f"dataset._name_={name}: {INSTEAD['dataset._name_']}"]
    new, left_out = _keys({"dataset": old}, problems)
    keys = new.get("dataset", {})
    # The original scales every clip to its own minimum and maximum. At 16 bits PCM stays as it is here.
    normalize = "none" if keys.get("bits", 8) == 16 else "minmax"
    settings = {
        "defaults": ["folder", "_self_"],
        "name": Path(str(keys.get("path", "mine"))).name,
        **{"bits": 8, "quantization": "linear", "drop_last": False, "normalize": normalize, "split": "order"},
        **keys,
    }
    title = f"# Translated from `_name_: {name}`."
    return [title, *left_out], settings


def _experiment(old: dict[str, Any], name: str) -> Translation:
    problems: list[str] = []
    chosen = {group.removeprefix("override ").removeprefix("/"): option for group, option in groups_of(old)}
    del old["defaults"]
    for part in ("encoder", "decoder"):
        node = old.pop(part, None)
        if isinstance(node, dict):
            old[part] = {key: value for key, value in node.items() if key != "_name_"}
            node = node.get("_name_")
        if node is not None:
            chosen[part] = node
    defaults = []
    for group, option in chosen.items():
        if not isinstance(option, str):
            problems.append(f"{group}={option}: one name is possible, not {'none' if option is None else 'several'}")
        elif group == "dataset":
            defaults.append({"override /dataset": option})
        elif option in OPTIONS.get(group, {}):
            defaults.append({f"override /{group}": OPTIONS[group][option]})
        elif group in OPTIONS:
            problems.append(f"{group}={option}: only {', '.join(OPTIONS[group])} can be translated")
        else:
            problems.append(f"/{group}: there is no such group; see `python train.py --help`")
    new, left_out = _keys(old, problems)
    silent = {k: v for group, option in chosen.items() for k, v in DEFAULTS.get(group, {}).get(option, {}).items()}
    for key, value in silent.items():
        _put(new, key, value, replace=False)
    first = ["# @package _global_", f"# python train.py experiment=audio/{name}"]
    return [*first, *left_out], {"defaults": defaults, **new}


def groups_of(old: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Entries `group: option` of a list of defaults."""
    for entry in old.get("defaults") or []:
        for group, option in entry.items() if isinstance(entry, dict) else [(entry, None)]:
            if group != "_self_":
                yield str(group), option


def _keys(old: dict[str, Any], problems: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Our keys, and a comment for each one left out. Raises SeedConfigError with all problems."""
    new: dict[str, Any] = {}
    left_out = []
    for key, value in _leaves(old):
        section, _, leaf = key.rpartition(".")
        if leaf in KEPT.get(section, "").split():
            _put(new, key, value)
        elif key in MOVED:
            _put(new, MOVED[key], value)
        elif key in ALWAYS and (value in ALWAYS[key][0] or ANY in ALWAYS[key][0]):
            left_out.append(f"# Left out: {key}={value} ({ALWAYS[key][1]}).")
        else:
            known = [k for k in (key, *_parents(key)) if k in INSTEAD]
            always = f"only {ALWAYS[key][0][0]!r} is possible: {ALWAYS[key][1]}" if key in ALWAYS else ""
            reason = INSTEAD[known[0]] if known else always or "has no counterpart; take it out, see docs/migration.md"
            problems.append(f"{key}={value}: {reason}")
    if problems:
        raise SeedConfigError("these keys cannot be translated:\n  " + "\n  ".join(problems))
    return new, left_out


def _leaves(node: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _parents(key: str) -> list[str]:
    parts = key.split(".")
    return [".".join(parts[:n]) for n in range(len(parts) - 1, 0, -1)]


def _put(tree: dict[str, Any], key: str, value: Any, replace: bool = True) -> None:
    *path, leaf = key.split(".")
    for part in path:
        tree = tree.setdefault(part, {})
    tree[leaf] = value if replace else tree.get(leaf, value)


def refuse_names(config: Mapping[str, Any]) -> None:
    """Raise SeedConfigError if a composed configuration is in the original's spelling, with what to write instead."""
    found = dict(names_of(config))
    refuse(found, "dataset" if list(found) == ["dataset: _name_"] else "experiment/audio")


def names_of(node: object, where: str = "") -> Iterator[tuple[str, object]]:
    """Keys of a configuration that choose by `_name_`, or an encoder or decoder by a word, and what they choose."""
    if isinstance(node, dict):
        if "_name_" in node:
            yield f"{where}: _name_", node["_name_"]
        for key, child in node.items():
            yield from names_of(child, f"{where}.{key}" if where else str(key))
    elif where in ("encoder", "decoder") and isinstance(node, str):
        yield where, node


def refuse(found: Mapping[str, object], folder: str, before: str = "") -> None:
    """Raise SeedConfigError if anything was `found` (key -> chosen name), with what to write in `folder` instead."""
    lines = [f"{key}: {name}: here {_instead(key, name)}" for key, name in found.items()]
    if lines:
        raise SeedConfigError(
            before + "\n  ".join(lines) + "\n  This is the spelling of the original S4 repository. Translate the whole "
            f"file: {COMMAND} output=configs/{folder}/mine.yaml"
        )


def _instead(key: str, name: object) -> str:
    if key == "dataset: _name_":
        return "`defaults: [folder, _self_]`, whose `_target_` is the one data module"
    group = key.removeprefix("/").split(":")[0]
    option = name if group == "dataset" else OPTIONS.get(group, {}).get(str(name))
    return f"`- override /{group}: {option}` in defaults" if option else "a group option with a `_target_`"
