"""Names: one class, one module and one test file for each, and every file or module that a text mentions exists."""

import ast
import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"
PACKAGE = sorted((SOURCE / "stereo_sashimi").rglob("*.py"))
# Documents whose mentions are checked as well.
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FILES = {path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py") if ".venv" not in path.parts}

MODULE = re.compile(r"(?<![\w./-])stereo_sashimi(?:\.\w+)+")
FILE = re.compile(r"(?<![\w.}])[\w./-]*\w\.py\b")
RUN = re.compile(r"python3? -m ((?:stereo_sashimi|benchmarks)[\w.]*)")


def repeated(names: dict[str, list[str]]) -> dict[str, list[str]]:
    return {name: places for name, places in names.items() if len(places) > 1}


def test_no_two_modules_or_public_classes_share_a_name():
    modules, classes = defaultdict(list), defaultdict(list)
    for path in PACKAGE:
        place = path.relative_to(SOURCE).as_posix()
        if path.stem not in ("__init__", "__main__"):
            modules[path.stem].append(place)
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                classes[node.name].append(place)
    assert repeated(modules) == {}
    assert repeated(classes) == {}


def test_test_files_have_names_of_their_own():
    """pytest imports them by base name."""
    names = defaultdict(list)
    for path in (ROOT / "tests").rglob("*.py"):
        names[path.name].append(path.relative_to(ROOT).as_posix())
    names.pop("conftest.py")
    assert repeated(names) == {}


def exists(dotted: str) -> bool:
    """Whether a dotted name is a module of the package, or a word that its module's file contains."""
    place, parts = SOURCE, dotted.split(".")
    for i, part in enumerate(parts):
        if (place / part).is_dir():
            place = place / part
        elif (place / f"{part}.py").is_file():
            place = place / f"{part}.py"
        else:
            file = place / "__init__.py" if place.is_dir() else place
            return i > 0 and re.search(rf"\b{part}\b", file.read_text(encoding="utf-8")) is not None
    return True


def runs(dotted: str) -> bool:
    """Whether `python -m` does something with it."""
    for root in (SOURCE, ROOT):
        path = root.joinpath(*dotted.split("."))
        if (path / "__main__.py").is_file():
            return True
        file = path.with_suffix(".py")
        if file.is_file() and 'if __name__ == "__main__"' in file.read_text(encoding="utf-8"):
            return True
    return False


def stale(text: str) -> list[str]:
    """What a text mentions and is not there."""
    found = [name for name in MODULE.findall(text) if not exists(name)]
    found += [f"python -m {name}" for name in RUN.findall(text) if not runs(name.rstrip("."))]
    for name in FILE.findall(text):
        end = name.lstrip("./")
        if not any(file == end or file.endswith(f"/{end}") for file in FILES):
            found.append(name)
    return found


def test_every_file_and_module_that_is_mentioned_exists():
    texts = [*PACKAGE, *DOCUMENTS]
    found = {path.relative_to(ROOT).as_posix(): stale(path.read_text(encoding="utf-8")) for path in texts}
    assert {name: words for name, words in found.items() if words} == {}


def test_a_stale_name_would_be_found():
    text = "stereo_sashimi.nn.s4.S4 and stereo_sashimi.load in nn/s4.py; python -m benchmarks; ./train.py"
    assert stale(text) == []
    assert stale("stereo_sashimi.app.train") == ["stereo_sashimi.app.train"]
    assert stale("stereo_sashimi.nn.s4.Absent, app/train.py") == ["stereo_sashimi.nn.s4.Absent", "app/train.py"]
    assert stale("python -m stereo_sashimi.ops") == ["python -m stereo_sashimi.ops"]
