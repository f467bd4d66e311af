"""What every source file keeps to: a docstring first, short, nothing half done, no pickled code, no silent except.

Which file may import which is in `test_imports.py`, what may be called what in `test_names.py`.
"""

import ast
import builtins
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = sorted(
    path
    for place in ("src", "preprocess", "benchmarks", "docs", "tests")
    for path in (ROOT / place).rglob("*.py")
    if "__pycache__" not in path.parts
) + sorted(ROOT.glob("*.py"))
SHIPPED = [path for path in CODE if path.relative_to(ROOT).parts[0] != "tests"]
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
MAX_LINES = 300
TEMPLATES = sorted((ROOT / "src").rglob("*.jinja"))

UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
FOREIGN_PATHS = re.compile(r"""["'\s=(](/home/|/root/|/Users/)""")
BANNED_ARGUMENTS = {"weights_only": False, "allow_pickle": True}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


# This file has to contain what it looks for.
OTHERS = [path for path in CODE if path != Path(__file__).resolve()]


def problems(source: str) -> list[str]:
    """Everything that no file may contain, with its line."""
    found = [
        f"line {i}: {match[0]}" for i, line in enumerate(source.splitlines(), 1) if (match := UNFINISHED.search(line))
    ]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            found.append(f"line {node.lineno}: an except without a class")
        if isinstance(node, ast.ExceptHandler) and all(isinstance(line, ast.Pass) for line in node.body):
            found.append(f"line {node.lineno}: an except that swallows its error")
        if isinstance(node, ast.keyword) and isinstance(node.value, ast.Constant):
            banned = BANNED_ARGUMENTS.get(node.arg or "")
            if banned is not None and node.value.value is banned:
                found.append(f"line {node.value.lineno}: {node.arg}={banned}")
    return found


def unbound(source: str) -> set[str]:
    """Names that are read and bound nowhere in a file: a lost import.

    The linter's rule (F821) is off, as it takes the axes in jaxtyping's strings for names.
    """
    read, bound = set(), {*dir(builtins), "__file__", "__path__"}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name):
            (read if isinstance(node.ctx, ast.Load) else bound).add(node.id)
        elif isinstance(node, ast.alias):
            bound.add(node.asname or node.name.partition(".")[0])
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.ExceptHandler | ast.MatchAs):
            bound.add(node.name or "")
    return read - bound


def test_every_name_is_bound_somewhere():
    assert unbound("import os\ndef f(x: 'a b'):\n    y = x\n    return os.sep, y, sys.exit") == {"sys"}
    assert {name_of(path): names for path in CODE if (names := unbound(path.read_text(encoding="utf-8")))} == {}


def test_a_module_begins_with_a_docstring():
    for path in CODE:
        source = path.read_text(encoding="utf-8")
        assert ast.get_docstring(ast.parse(source)), f"{name_of(path)} has no docstring"
        assert re.match(r'(#![^\n]*\n)?r?"""', source), f"{name_of(path)} has something before its docstring"


def test_a_file_is_short():
    lengths = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in CODE + TEMPLATES}
    long = {name: length for name, length in lengths.items() if length > MAX_LINES}
    assert long == {}


def test_a_file_holds_nothing_banned():
    found = {name_of(path): problems(path.read_text(encoding="utf-8")) for path in OTHERS}
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_a_file_names_no_path_of_one_machine():
    for path in [*OTHERS, *CONFIGS]:
        match = FOREIGN_PATHS.search(path.read_text(encoding="utf-8"))
        assert match is None, f"{name_of(path)}: {match}"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("# TODO: later", "line 1: TODO"),
        ("x = 1\n# FIXME", "line 2: FIXME"),
        ("torch.load(p, weights_only=False)", "weights_only=False"),
        ("np.load(\n    p,\n    allow_pickle=True,\n)", "line 3: allow_pickle=True"),
        ("try:\n    x()\nexcept:\n    raise", "line 3: an except without a class"),
        ("try:\n    x()\nexcept OSError:\n    pass", "line 3: an except that swallows its error"),
    ],
)
def test_these_would_be_found(source, words):
    assert any(words in problem for problem in problems(source))
    assert problems("torch.load(p, weights_only=True)") == []


def test_a_path_would_be_found():
    assert FOREIGN_PATHS.search('open("/home/me/data")')
    assert not FOREIGN_PATHS.search('open("data/home/x")')


def test_an_entry_point_is_a_thin_door():
    doors = [path for path in SHIPPED if path.parent == ROOT]
    assert doors
    assert [name_of(path) for path in doors if len(path.read_text(encoding="utf-8").splitlines()) > 30] == []
