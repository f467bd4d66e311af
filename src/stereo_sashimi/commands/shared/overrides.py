"""Values on the command line as Hydra reads them: which need quotes, and what to type instead."""

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from stereo_sashimi.commands.shared.suggest import group_of
from stereo_sashimi.schema import refuse_unknown

SWEEP = ("-m", "--multirun")


def check_overrides(words: Sequence[str], keys: Sequence[str] = (), configs: Path = Path("configs")) -> None:
    """Raise ValueError for the first word that Hydra cannot read, with what to write instead.

    Args:
        words: `key=value` and Hydra's own options.
        keys: first names of the keys that there are; none: any, and lists of values besides.
        configs: where the options of groups are.
    """
    parser = OverridesParser.create()
    for before, word in zip(["", *words], words, strict=False):
        key, equals, value = word.partition("=")
        name = re.split(r"[./@]", key.lstrip("+~-"))[0].replace("-", "_")
        if word.startswith("--") and name in keys:
            raise ValueError(f"{word} must be written as {name}={value or '..'}, without dashes.")
        # What follows an option of Hydra may be its value.
        if word.startswith("-") or (before.startswith("-") and not equals):
            continue
        if not value and not word.startswith("~"):
            raise ValueError(f"{word!r} must be key=value; --help lists the keys. For none write key=null.")
        if keys and name != "hydra":
            group = None if name in keys else group_of(name, keys, configs)
            if group is not None:
                raise ValueError(f"Unknown key {name}. Did you mean {group}={name}?")
            refuse_unknown({name: value}, keys, "")
            if word == f"~{name}":
                raise ValueError(f"{word} takes away what the command reads. Give it a value: {name}=..")
        try:
            parsed = parser.parse_override(word)
        except HydraException as error:
            if any("\udc80" <= character <= "\udcff" for character in word):
                raise ValueError(f"{word!r} has bytes that are not UTF-8. Rename the file.") from error
            typed = shlex.quote(f"{key}={_quoted(value)}")
            raise ValueError(
                f"{word} cannot be read: a value with other characters than A-Z, a-z, 0-9 and /-+.:%@?| needs "
                f"quotes of its own.\n  Write {typed} (the outer quotes are the shell's)."
            ) from error
        if keys and parsed.is_sweep_override() and not {*SWEEP, "hydra.mode=MULTIRUN"} & set(words):
            name, several = (shlex.quote(f"{key}={text}") for text in (_quoted(value), f"[{value}]"))
            raise ValueError(
                f"{word} means several runs, which train.py -m starts.\n  For a name with a comma write {name}, for a "
                f"list {several} (the outer quotes are the shell's)."
            )


def check_run_folder(words: Sequence[str]) -> None:
    """Raise ValueError if Hydra could not make the run's folder, which it does before the command starts."""
    values = dict(word.partition("=")[::2] for word in words)
    key = "hydra.run.dir" if "hydra.run.dir" in values else "paths.runs"
    folder = Path(values.get(key, "runs").strip("\"'")).absolute()
    if "${" in str(folder):
        return
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        why = "cannot be written" if existing.is_dir() else "is a file"
        raise ValueError(f"{key}={folder} cannot be made: {existing} {why}. Give another folder: {key}=<folder>.")


def with_inputs(words: Sequence[str]) -> list[str]:
    """`words` with plain ones, which are names of files, as `input=..`."""
    names = [word for word in words if word == "-" or not (word.startswith(("-", "~", "+")) or "=" in word)]
    if not names:
        return list(words)
    if any(word.startswith("input=") for word in words):
        raise ValueError(f"{names[0]!r} and input=.. are both given. Give all files one way.")
    rest = [word for word in words if word not in names]
    return [*rest, override("input", names[0] if len(names) == 1 else names)]


def override(key: str, value: str | Sequence[str]) -> str:
    """`key=value`, the value in quotes if Hydra would not read it as it stands; of a list, each text in quotes."""
    if not isinstance(value, str):
        return f"{key}=[{','.join(map(_quoted, value))}]"
    try:
        read = OverridesParser.create().parse_override(f"{key}={value}").value()
    except HydraException:
        read = None
    return f"{key}={value}" if read == value else f"{key}={_quoted(value)}"


def _quoted(value: str) -> str:
    # Inside quotes a backslash counts only in front of a quote.
    escaped = re.sub(r'(\\*)("|$)', lambda m: m[1] * 2 + ('\\"' if m[2] else ""), value)
    return f'"{escaped}"'
