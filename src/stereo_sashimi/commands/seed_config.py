"""YAML of the original S4 repository, and of its stereo fork -> ours.

  stereo-sashimi translate input=OLD.yaml > configs/experiment/audio/mine.yaml
  stereo-sashimi translate input=OLD.yaml > configs/dataset/mine.yaml

for files of configs/experiment and of configs/dataset; which one it is shows in the file. Comments are lost. What was
left out, because it says what always holds here, is listed at the top of the new file; a key without a counterpart is
an error that names what to use instead.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from stereo_sashimi.commands.seed_keys import ALWAYS, ANY, DEFAULTS, INSTEAD, KEPT, MOVED, OPTIONS

COMMAND = "python -m stereo_sashimi translate input=OLD.yaml"
GROUPS = (*OPTIONS, "dataset")


class SeedConfigError(ValueError):
    """YAML of the original that cannot be translated; the message names every such key and what to use instead."""


def translate(text: str, name: str = "mine") -> str:
    """The YAML of an experiment or a data set of the original, in our spelling.

    - `text`: a file of the original's configs/experiment or configs/dataset.
    - `name`: of the experiment, for the command in its first comment.

    Raises SeedConfigError for text that is neither, and for keys or values without a counterpart.
    """
    old = _read(text)
    if "_name_" in old:
        return _dataset(old)
    if isinstance(old.get("defaults"), list):
        return _experiment(old, name)
    raise SeedConfigError(
        "this is neither an experiment (with a list of `defaults`) nor a data set (with `_name_: qautoaudio`) of the "
        "original."
    )


def _read(text: str) -> dict[str, Any]:
    try:
        content = OmegaConf.to_container(OmegaConf.create(text))
    except (OmegaConfBaseException, YAMLError, RecursionError) as error:
        raise SeedConfigError(f"this is not YAML that Hydra reads: {error}") from error
    return {str(key): value for key, value in content.items()} if isinstance(content, dict) else {}


def _dataset(old: dict[str, Any]) -> str:
    name = old.pop("_name_")
    problems = [] if name == "qautoaudio" else [f"dataset._name_={name}: {INSTEAD['dataset._name_']}"]
    new, left_out = _keys({"dataset": old}, problems)
    keys = new.get("dataset", {})
    # The original scales every clip to its own minimum and maximum. At 16 bits PCM stays as it is here.
    normalize = "none" if keys.get("bits", 8) == 16 else "minmax"
    settings = {
        "defaults": ["folder", "_self_"],
        "name": Path(str(keys.get("path", "mine"))).name,
        **{"bits": 8, "quantization": "linear", "drop_last": False, "normalize": normalize},
        **keys,
    }
    title = f"# Translated from `_name_: {name}`."
    return _write([title, *left_out], settings)


def _experiment(old: dict[str, Any], name: str) -> str:
    problems: list[str] = []
    chosen = {group.removeprefix("override ").removeprefix("/"): option for group, option in _groups(old)}
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
        if group == "dataset":
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
    return _write([*first, *left_out], {"defaults": defaults, **new})


def _groups(old: dict[str, Any]) -> Iterator[tuple[str, Any]]:
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


def _write(comments: Sequence[str], settings: dict[str, Any]) -> str:
    return "\n".join(comments) + "\n" + OmegaConf.to_yaml(OmegaConf.create(settings))


def refuse_names(config: Mapping[str, Any]) -> None:
    """Raise SeedConfigError if a composed configuration is in the original's spelling, with what to write instead."""
    found = dict(_names(config))
    _refuse(found, "dataset" if list(found) == ["dataset: _name_"] else "experiment/audio")


def refuse_files(configs: Path, arguments: Sequence[str]) -> None:
    """Raise SeedConfigError for `group=option` arguments whose file in `configs` is in the original's spelling.

    Hydra stops at such an experiment before we see it, but says only that a group was chosen twice.
    """
    for argument in arguments:
        group, _, option = argument.lstrip("+~").partition("=")
        path = configs / group / f"{option}.yaml"
        if not option or not path.is_file():
            continue
        content = _read(path.read_text(encoding="utf-8"))
        if group == "experiment":
            old = {entry: option for entry, option in _groups(content) if entry.removeprefix("/") in GROUPS}
            _refuse({**old, **dict(_names(content))}, "experiment/audio", f"{path}:\n  ")
        else:
            _refuse(dict(_names({group: content})), group, f"{path}:\n  ")


def _names(node: object, where: str = "") -> Iterator[tuple[str, object]]:
    """Keys of a configuration that choose by `_name_`, or an encoder or decoder by a word, and what they choose."""
    if isinstance(node, dict):
        if "_name_" in node:
            yield f"{where}: _name_", node["_name_"]
        for key, child in node.items():
            yield from _names(child, f"{where}.{key}" if where else str(key))
    elif where in ("encoder", "decoder") and isinstance(node, str):
        yield where, node


def _refuse(found: Mapping[str, object], folder: str, before: str = "") -> None:
    lines = [f"{key}: {name}: here {_instead(key, name)}" for key, name in found.items()]
    if lines:
        raise SeedConfigError(
            before + "\n  ".join(lines) + "\n  This is the spelling of the original S4 repository. Translate the whole "
            f"file: {COMMAND} > configs/{folder}/mine.yaml"
        )


def _instead(key: str, name: object) -> str:
    if key == "dataset: _name_":
        return "`defaults: [folder, _self_]`, whose `_target_` is the one data module"
    group = key.removeprefix("/").split(":")[0]
    option = name if group == "dataset" else OPTIONS.get(group, {}).get(str(name))
    return f"`- override /{group}: {option}` in defaults" if option else "a group option with a `_target_`"
