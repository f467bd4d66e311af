"""Plain dictionaries <-> frozen config dataclasses, strictly: how checkpoints and exported models describe a model.

A config class carries `kind`, a ClassVar string, when it is one of several choices (head, layer, scheduler).
Nothing here imports by name: a file can only choose among the classes that the caller lists. Values must have the
types of the dataclass fields, so that a file from elsewhere fails here and not somewhere inside torch.
"""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Collection, Sequence
from typing import Any

# JSON numbers are exact up to here; no size or count comes near it.
_INTEGER_LIMIT = 2**53

# For error messages: one value, several values.
_WORDS = {
    int: ("an integer", "integers"),
    float: ("a finite number", "finite numbers"),
    bool: ("true or false", "booleans"),
    str: ("text", "texts"),
    dict: ("a mapping", "mappings"),
    type(None): ("null", "nulls"),
}


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
    Raises ValueError for anything that is not a dictionary, an unknown kind, an unknown or missing field, and a value
    of another type than the field's (see `check_type`).
    """
    if not isinstance(data, dict):
        raise ValueError(f"{where} must be a mapping of fields; got {type(data).__name__}.")
    data = dict(data)
    kinds = {getattr(c, "kind", c.__name__): c for c in classes}
    kind = data.pop("kind", None)
    if kind is None and len(classes) == 1:
        kind = next(iter(kinds))
    if not isinstance(kind, str) or kind not in kinds:
        raise ValueError(f"{where}.kind must be one of {', '.join(kinds)}; got {_shown(kind)}.")
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
    hints = typing.get_type_hints(cls)
    for name, value in data.items():
        if "classes" in fields[name].metadata:
            data[name] = from_plain(value, fields[name].metadata["classes"], f"{where}.{name}")
        else:
            data[name] = check_type(value, hints[name], f"{where}.{name}")
    return cls(**data)


def check_type(value: Any, hint: Any, where: str) -> Any:
    """`value`, if it has the type of a field annotated with `hint`; whole numbers become floats where those belong.

    - `hint`: int, float, bool, str, None, dict, unions of these, and sequences of one of these.

    Raises ValueError naming `where`. A boolean is no number; numbers must be finite, integers below 2**53.
    """
    options = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    for option in options:
        kind = typing.get_origin(option) or option
        if kind is not str and issubclass(kind, Sequence):
            if isinstance(value, (list, tuple)):
                items = _items(value, typing.get_args(option)[0], where)
                return tuple(items) if kind is tuple else items
        elif kind not in _WORDS:
            raise TypeError(f"{where} is annotated with {hint}, which check_type does not know.")
        elif _fits(value, kind):
            return float(value) if kind is float else value
    raise ValueError(f"{where} must be {' or '.join(_name(option) for option in options)}; got {_shown(value)}.")


def check_count(value: object, where: str, least: int = 1) -> int:
    """`value`, if it is an integer of at least `least`; else raise ValueError naming `where`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{where} must be an integer of at least {least}; got {value!r}.")
    return value


def check_choice(value: object, where: str, allowed: Collection[str]) -> None:
    """Raise ValueError, naming `where` and what is allowed, for anything else."""
    if value not in allowed:
        raise ValueError(f"{where} must be one of {', '.join(allowed)}; got {value!r}.")


def refuse_unknown(data: dict[str, Any], allowed: Sequence[str], where: str) -> None:
    """Raise ValueError naming the first key of `data` that is not allowed, with the closest allowed one.

    - `where`: the name of what holds the keys, empty for a whole config.
    """
    prefix = f"{where}." if where else ""
    for key in data:
        if key not in allowed:
            close = difflib.get_close_matches(str(key), allowed, n=1)
            hint = f" Did you mean {prefix}{close[0]}?" if close else f" Allowed: {', '.join(allowed)}."
            raise ValueError(f"Unknown key {prefix}{key}.{hint}")


def _items(values: Sequence[Any], item: Any, where: str) -> list[Any]:
    for value in values:
        if not _fits(value, item):
            raise ValueError(f"{where} must hold {_WORDS[item][1]}; got {_shown(value)} in it.")
    return [float(value) if item is float else value for value in values]


def _fits(value: object, kind: type) -> bool:
    if isinstance(value, bool):
        return kind is bool
    if isinstance(value, int):
        return kind in (int, float) and abs(value) < _INTEGER_LIMIT
    if isinstance(value, float):
        return kind is float and math.isfinite(value)
    return isinstance(value, kind)


def _name(hint: Any) -> str:
    kind = typing.get_origin(hint) or hint
    return _WORDS[kind][0] if kind in _WORDS else f"a list of {_WORDS[typing.get_args(hint)[0]][1]}"


def _shown(value: Any) -> str:
    """A value of any size in a message of one line."""
    if isinstance(value, int) and abs(value) >= _INTEGER_LIMIT:
        return f"an integer of {value.bit_length()} bits"
    text = repr(value) if isinstance(value, (int, float, str, bool, type(None))) else type(value).__name__
    return text if len(text) <= 60 else f"{text[:57]}..."
