"""Key names of the original S4 repository's state dicts -> our parameter names; used by `reference.py`."""

import re
from collections.abc import Mapping
from typing import Any

# (pattern, replacement) inside one block or pool, tried in order.
LEAVES = (
    (r"^layer\.layer\.kernel\.(\w+)$", r"layer.ssm.\1"),
    (r"^layer\.layer\.D$", "layer.D"),
    (r"^layer\.output_linear\.0\.(\w+)$", r"layer.output.\1"),
    (r"^layer\.ff\.0\.0\.(\w+)$", r"layer.input.\1"),
    (r"^layer\.ff\.2\.(\w+)$", r"layer.output.\1"),
    (r"^norm\.norm\.([ms])$", r"norm.\1"),
    (r"^norm\.(weight|bias)$", r"norm.\1"),
    (r"^linear\.(weight|weight_g|weight_v|bias)$", r"linear.\1"),
)
S4_BLOCK = (
    (r"^layer\.kernel\.(\w+)$", r"ssm.\1"),
    (r"^layer\.D$", "D"),
    (r"^output_linear\.0\.(\w+)$", r"output.\1"),
)
LANGUAGE_MODEL = (
    # The stereo fork has one level more.
    (r"^encoder\.0\.(?:embedding\.)?weight$", "embedding.tables.0.weight"),
    (r"^decoder\.0\.output_transform\.(\w+)$", r"head.channels.0.\1"),
)


def rename(key: str, config: Mapping[str, Any]) -> str:
    """Our name for the original's `key`. Raises ValueError for a key that the kind `config['type']` does not have."""
    kind = config["type"]
    name = None
    if kind == "s4block":
        name = _substitute(key, S4_BLOCK)
    elif kind.startswith("lm_"):
        name = _substitute(key, LANGUAGE_MODEL)
        if name is None and key.startswith("model."):
            backbone = _backbone(key.removeprefix("model."), kind.removeprefix("lm_"), config)
            name = backbone and f"backbone.{backbone}"
    else:
        name = _backbone(key, kind, config)
    if name is None:
        raise ValueError(f"Key {key!r} is not part of a {kind!r} checkpoint of the original implementation.")
    return name


def _backbone(key: str, kind: str, config: Mapping[str, Any]) -> str | None:
    if key in ("norm.weight", "norm.bias"):
        return key
    match = re.match(r"^([dcu])_layers\.(\d+)\.(.+)$", key)
    if match is None:
        return None
    part, index, rest = match[1], int(match[2]), match[3]
    per_level = 2 * config["n_layers"] + 1
    flat_down = kind == "unet_modular" or bool(config.get("unet", False))
    if part == "c":
        place = f"center.{index}"
    elif part == "d":
        place = f"down.{index // per_level}.{index % per_level}" if flat_down else f"down.{index}.0"
    elif kind == "unet_modular":
        place = f"up.{index // per_level}.{index % per_level}"
    else:
        inner, _, rest = rest.partition(".")
        place = f"up.{index}.{inner}"
    leaf = _substitute(rest, LEAVES)
    return leaf and f"{place}.{leaf}"


def _substitute(key: str, table: tuple[tuple[str, str], ...]) -> str | None:
    for pattern, replacement in table:
        if re.match(pattern, key):
            return re.sub(pattern, replacement, key)
    return None
