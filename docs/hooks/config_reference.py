"""The page of all keys: what configs/*.yaml say in their comments, as Markdown, made anew by site_pages.py.

A key without a comment of its own has that of the file which it starts from, or of the option that it sets.
"""

import re
from dataclasses import dataclass
from functools import cache
from html import escape
from itertools import groupby
from pathlib import Path
from textwrap import dedent
from typing import Any

import yaml

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
COMMAND = re.compile(r"  |python |stereo-sashimi ")


@dataclass(frozen=True)
class Key:
    """A key with its dots as typed on a command line; `value` None: it holds other keys, or lines of text."""

    name: str
    value: str | None
    comment: str


def package(file: str) -> str:
    """Where the keys of a file lie, with a dot behind it: `model.layer.` for model/layer/s4.yaml."""
    first = (CONFIGS / file).read_text(encoding="utf-8").split("\n", 1)[0]
    folder = Path(file).parent
    return "" if first == "# @package _global_" or folder == Path() else ".".join(folder.parts) + "."


def head(file: str) -> list[str]:
    """The comment at the top of a file."""
    lines = (CONFIGS / file).read_text(encoding="utf-8").splitlines()
    end = next(i for i, line in enumerate([*lines, ""]) if not line.startswith("#"))
    return [line[2:] for line in lines[:end] if not line.startswith("# @package")]


def content(file: str) -> dict[str, Any]:
    """What a file holds, as plain fields."""
    return yaml.safe_load((CONFIGS / file).read_text(encoding="utf-8")) or {}


@cache
def starts(file: str) -> list[str]:
    """The files whose keys a file starts from or sets; the last one counts most."""
    found = [] if package(file) or "/" not in file else ["train.yaml"]
    for entry in content(file).get("defaults", []):
        group, option = next(iter(entry.items())) if isinstance(entry, dict) else ("", entry)
        group = group.removeprefix("override ")
        if option in ("_self_", None) or "hydra/" in group:  # Hydra's own groups have no files here.
            continue
        above = Path() if f"{group}{option}".startswith("/") else Path(file).parent
        found.append((above / f"{group}/{option}.yaml".lstrip("/")).as_posix())
    return found


def comment_at(lines: list[str], line: int, column: int) -> str:
    """The comment behind a place, with the lines that go on below its #."""
    match = re.match(r":?[^#]*?\s#\s*(.*)", lines[line][column:])
    if not match:
        return ""
    words, place = [match[1]], lines[line].index("#", column)
    for below in lines[line + 1 :]:
        if below.find("#") != place or below.strip()[0] != "#":
            break
        words.append(below.strip("# "))
    return " ".join(words)


@cache
def keys(file: str) -> list[Key]:
    """The keys that stand in a file, with the comments beside them."""
    text = (CONFIGS / file).read_text(encoding="utf-8")
    lines, found = text.splitlines(), []

    def walk(node: yaml.MappingNode, prefix: str) -> None:
        for key, value in node.value:
            name, nested = prefix + key.value, isinstance(value, yaml.MappingNode) and bool(value.value)
            if key.value in ("defaults", "_target_"):
                continue
            one_line = not nested and value.end_mark.line == key.end_mark.line
            comment = comment_at(lines, key.end_mark.line, (value if one_line else key).end_mark.column)
            shown = text[value.start_mark.index : value.end_mark.index] if one_line else None
            found.append(Key(name, shown, comment))
            if nested:
                walk(value, f"{name}.")

    root = yaml.compose(text)
    if isinstance(root, yaml.MappingNode):
        walk(root, package(file))
    return found


def comment_of(name: str, file: str) -> str:
    """The comment of a key in a file, else in the files that this one starts from."""
    own = next((key.comment for key in keys(file) if key.name == name), "")
    return own or next((said for start in reversed(starts(file)) if (said := comment_of(name, start))), "")


def uncommented() -> list[str]:
    """Keys that no comment explains, as `file: key`; a key that holds others needs none."""
    files = [path.relative_to(CONFIGS).as_posix() for path in sorted(CONFIGS.rglob("*.yaml"))]
    return [
        f"{file}: {key.name}"
        for file in files
        for key in keys(file)
        if key.value is not None and not comment_of(key.name, file)
    ]


def html(text: str) -> str:
    """A comment as HTML, with its `code`."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))


def section(title: str, file: str) -> str:
    """A heading, what the top of the file says, and a table of its keys."""
    parts = [f"### {title}"]
    for is_command, group in groupby(head(file), lambda line: COMMAND.match(line) is not None):
        lines = list(group)
        parts.append(
            f"```bash\n{dedent(chr(10).join(lines))}\n```" if is_command else f"<p>{html(' '.join(lines))}</p>"
        )
    target = content(file).get("_target_")
    options = [f"<code>{start.removesuffix('.yaml')}</code>" for start in starts(file) if start != "train.yaml"]
    about = [f"Builds <code>{target}</code>."] if target else []
    about += [f"Starts from {', '.join(options)}."] if options else []
    parts.append(f"<p>{' '.join(about)}</p>" if about else "")
    rows = [
        f"<tr><td style='white-space: nowrap'><code>{key.name}</code></td>"
        f"<td>{f'<code>{escape(key.value)}</code>' if key.value else ''}</td>"
        f"<td>{html(comment_of(key.name, file))}</td></tr>"
        for key in keys(file)
        if key.value is not None or key.comment
    ]
    titles = "<tr><th>key</th><th>value</th><th>what it is</th></tr>"
    parts.append(f"<table><thead>{titles}</thead><tbody>{''.join(rows)}</tbody></table>" if rows else "")
    return "\n\n".join(part for part in parts if part)


def page() -> str:
    """The whole page: commands, then each group with its options, in the order of train.yaml."""
    commands = sorted(path.name for path in CONFIGS.glob("*.yaml"))
    folders = {path.parent.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.yaml")} - {"."}
    order = [next(iter(entry)) for entry in content("train.yaml")["defaults"] if isinstance(entry, dict)]
    places = {group: place for place, group in enumerate(order)}
    parts = [
        "# All keys",
        "Every key of every command and option: its name as typed on the command line, its value, and the comment "
        "beside it in `configs/`. `python train.py model=sashimi_tiny model.d_model=48` chooses an option of a group "
        "and sets a key; `--cfg job --resolve` shows the result.",
        "## Commands",
        *(section(name.removesuffix(".yaml"), name) for name in sorted(commands, key="train.yaml".__ne__)),
    ]
    for folder in sorted(folders, key=lambda folder: (places.get(folder.split("/")[0], 99), folder)):
        group = folder.removesuffix("/audio")
        parts.append(f"## {group}")
        for path in sorted((CONFIGS / folder).glob("*.yaml")):
            option = path.relative_to(CONFIGS / group).with_suffix("").as_posix()
            parts.append(section(f"{group}={option}", path.relative_to(CONFIGS).as_posix()))
    return "\n\n".join(parts) + "\n"
