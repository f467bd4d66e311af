"""Runs Triton's compiler in a process of its own, for a GPU that need not be there."""

import os
import subprocess
import sys
from pathlib import Path


def run_with_compiler(script: str, cache: Path) -> None:
    """Down to machine code, with the assembler that Triton brings along: the interpreter accepts more than it."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(cache), "PYTHONWARNINGS": "error::UserWarning"}
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, timeout=280
    )
    assert result.returncode == 0, result.stderr
