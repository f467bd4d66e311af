"""Rooms import one way, numerics know no framework, only app knows Hydra: import-linter's contracts, and their reach.

The contracts are in pyproject.toml, [tool.importlinter]. What a file may contain is in `test_source.py`.
"""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "stereo_sashimi"
LINT = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True, no_logo=True))"


def run_python(code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run `code` in a fresh interpreter in front of the package under `cwd`/src."""
    environment = {**os.environ, "PYTHONPATH": str(cwd / "src")}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120
    )


def imported_modules(path: Path) -> set[str]:
    """The modules that a file names in its imports, at any depth of the code."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def test_every_contract_is_kept():
    result = run_python(LINT, ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture(scope="module")
def report_on_violations(tmp_path_factory) -> str:
    """What import-linter says about a copy of the package with one wrong import per contract."""
    copy = tmp_path_factory.mktemp("violations")
    shutil.copytree(PACKAGE, copy / "src" / "stereo_sashimi", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    for place, line in {
        "nn/wrong.py": "import stereo_sashimi.models.sashimi",
        "data/wrong.py": "import stereo_sashimi.nn.s4",
        "ops/wrong.py": "import pytorch_lightning",
        "tasks/wrong.py": "from omegaconf import DictConfig",
        "unheard_of.py": "",
    }.items():
        (copy / "src" / "stereo_sashimi" / place).write_text(f'"""A violation."""\n\n{line}\n')
    result = run_python(LINT, copy)
    assert result.returncode != 0
    return result.stdout


@pytest.mark.parametrize(
    "words",
    [
        "stereo_sashimi.nn.wrong -> stereo_sashimi.models.sashimi",
        "stereo_sashimi.data.wrong -> stereo_sashimi.nn.s4",
        "stereo_sashimi.ops.wrong -> pytorch_lightning",
        "stereo_sashimi.tasks.wrong -> omegaconf",
        "unheard_of",
    ],
)
def test_the_contracts_notice_a_violation(report_on_violations, words):
    assert words in report_on_violations


def test_only_app_knows_hydra_in_rooms_without_a_contract_too():
    """The contract lists rooms by name; this holds for a room that was added since."""
    for path in PACKAGE.rglob("*.py"):
        if path.relative_to(PACKAGE).parts[0] != "commands":
            roots = {name.split(".")[0] for name in imported_modules(path)}
            assert not roots & {"hydra", "omegaconf", "hydra_plugins"}, path


def test_no_room_imports_the_package_root():
    """`import stereo_sashimi` inside a room would close a circle that the layers do not see."""
    for path in PACKAGE.rglob("*.py"):
        assert "stereo_sashimi" not in imported_modules(path) or "commands" in path.parts or path.parent == PACKAGE, (
            path
        )


def test_importing_every_public_name_prints_nothing_and_loads_no_framework():
    code = """
import sys
import stereo_sashimi
for name in stereo_sashimi.__all__:
    getattr(stereo_sashimi, name)
heavy = {"pytorch_lightning", "lightning", "hydra", "omegaconf", "matplotlib", "pykeops", "wandb", "musdb"}
loaded = heavy & set(sys.modules)
import torch
assert not loaded, loaded
assert not torch.cuda.is_initialized()
"""
    result = run_python(code, ROOT)
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""
    assert result.stderr == ""


def test_the_public_names_are_these():
    import stereo_sashimi

    public = {"AudioSpec", "CheckpointError", "LanguageModel", "LanguageModelConfig", "Sampler", "Stream", "load"}
    public |= {"TrackScore", "generate", "read", "save", "score", "write", "encode", "decode", "CodecError"}
    assert set(stereo_sashimi.__all__) == public | {"interop", "__version__"}
    for name in stereo_sashimi.__all__:
        assert hasattr(stereo_sashimi, name), name
