"""Plain dictionaries <-> frozen config dataclasses, strictly: how checkpoints describe a model.

A config class carries `kind`, a ClassVar string, when it is one of several choices (head, layer, scheduler).
Nothing here imports by name: a file can only choose among the classes that the caller lists.
"""

import dataclasses
import difflib
from collections.abc import Sequence
from typing import Any


def to_plain(config: Any) -> Any:
    """Turn nested config dataclasses into dictionaries, lists and scalars; `kind` is added where a class has one."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        plain = {f.name: to_plain(getattr(config, f.name)) for f in dataclasses.fields(config)}
        kind = getattr(type(config), "kind", None)
        return {"kind": kind, **plain} if kind is not None else plain
    if isinstance(config, (list, tuple)):
        return [to_plain(item) for item in config]
    return config


def from_plain(data: Any, classes: Sequence[type], where: str) -> Any:
    """Build the config that `data` describes.

    - `data`: a dictionary of plain fields, with `kind` if there is more than one class to choose from.
    - `classes`: the config classes allowed here.
    - `where`: the name of this place, used in errors.

    A field that holds another config lists its classes in its metadata, `field(metadata={"classes": (A, B)})`.
    Raises ValueError for anything that is not a dictionary, an unknown kind, or an unknown or missing field.
    """
    if not isinstance(data, dict):
        raise ValueError(f"{where} must be a mapping of fields; got {type(data).__name__}.")
    data = dict(data)
    kinds = {getattr(c, "kind", c.__name__): c for c in classes}
    kind = data.pop("kind", None)
    if kind is None and len(classes) == 1:
        kind = next(iter(kinds))
    if kind not in kinds:
        raise ValueError(f"{where}.kind must be one of {', '.join(kinds)}; got {kind!r}.")
    cls = kinds[kind]
    fields = {f.name: f for f in dataclasses.fields(cls)}
    refuse_unknown(data, list(fields), where)
    missing = [
        name
        for name, f in fields.items()
        if name not in data and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ValueError(f"{where} lacks the field {missing[0]!r}; it is required for {cls.__name__}.")
    for name, value in data.items():
        if "classes" in fields[name].metadata:
            data[name] = from_plain(value, fields[name].metadata["classes"], f"{where}.{name}")
    return cls(**data)


def refuse_unknown(data: dict[str, Any], allowed: Sequence[str], where: str) -> None:
    """Raise ValueError naming the first key of `data` that is not allowed, with the closest allowed one."""
    for key in data:
        if key not in allowed:
            close = difflib.get_close_matches(str(key), allowed, n=1)
            hint = f" Did you mean {where}.{close[0]}?" if close else f" Allowed: {', '.join(allowed)}."
            raise ValueError(f"Unknown key {where}.{key}.{hint}")
