"""Rooms import one way, numerics know no framework, only commands know Hydra: import-linter's contracts.

The contracts are in pyproject.toml, [tool.importlinter]. What a file may contain is in `test_source.py`.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

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


VIOLATIONS = {
    "nn/wrong.py": ("stereo_sashimi.models.sashimi", "stereo_sashimi.nn.wrong -> stereo_sashimi.models.sashimi"),
    "data/wrong.py": ("stereo_sashimi.nn.s4", "stereo_sashimi.data.wrong -> stereo_sashimi.nn.s4"),
    "ops/wrong.py": ("pytorch_lightning", "stereo_sashimi.ops.wrong -> pytorch_lightning"),
    "tasks/wrong.py": ("omegaconf", "stereo_sashimi.tasks.wrong -> omegaconf"),
    "unheard_of.py": ("", "unheard_of"),
}


def test_contracts_notice_one_wrong_import_each_and_no_other(tmp_path):
    """import-linter over a copy of the package in which each contract is broken once: every line is about that."""
    copy = tmp_path / "src" / "stereo_sashimi"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for place, (module, _) in VIOLATIONS.items():
        (copy / place).write_text('"""A violation."""\n' + (f"\nimport {module}\n" if module else ""))
    result = run_python(LINT, tmp_path)
    assert result.returncode != 0
    for _, words in VIOLATIONS.values():
        assert words in result.stdout
    chains = re.split(r"^- ", result.stdout, flags=re.MULTILINE)[1:]
    assert [chain for chain in chains if not re.search(r"\b(wrong|unheard_of)\b|^\.nn -> \.models \(1", chain)] == []


def test_only_commands_know_hydra_in_rooms_without_a_contract_too():
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
# These take longer to load than all of the package.
heavy |= {"torch._dynamo", "scipy.fft", "scipy.signal"}
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
