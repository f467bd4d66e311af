"""Values on the command line as Hydra reads them: which need quotes, and what to type instead."""

import re
import shlex
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException


def check_overrides(arguments: Sequence[str]) -> None:
    """Raise ValueError for the first `key=value` that Hydra cannot read, with the quotes that it lacks."""
    parser = OverridesParser.create()
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if argument.startswith("-") or not equals:
            continue
        try:
            parser.parse_override(argument)
        except HydraException as error:
            typed = shlex.quote(f"{key}={_quoted(value)}")
            raise ValueError(
                f"{argument} cannot be read: a value with other characters than A-Z, a-z, 0-9 and /-+.:%@?| needs "
                f"quotes of its own.\n  Write {typed} (the outer quotes are the shell's)."
            ) from error


def override(key: str, value: str) -> str:
    """`key=value`, the value in quotes if Hydra would not read it as it stands."""
    try:
        read = OverridesParser.create().parse_override(f"{key}={value}").value()
    except HydraException:
        read = None
    return f"{key}={value}" if read == value else f"{key}={_quoted(value)}"


def _quoted(value: str) -> str:
    # Inside quotes a backslash counts only in front of a quote.
    escaped = re.sub(r'(\\*)("|$)', lambda m: m[1] * 2 + ('\\"' if m[2] else ""), value)
    return f'"{escaped}"'
