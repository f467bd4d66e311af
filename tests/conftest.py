"""Shapes are checked in tests/unit and tests/property: beartype enforces jaxtyping's annotations in the whole package.

The others run the package as its users do: a check of every call takes longer than most steps of a recurrence.
"""

import os

# Two busy cores make OpenMP threads spin; tests are small enough for one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("MPLBACKEND", "Agg")

from pathlib import Path

import jaxtyping
import pytest
import torch
from jaxtyping import install_import_hook

# Without a CUDA device numpy runs the GPU programs. Triton asks when it is imported, which Lightning does.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

install_import_hook("stereo_sashimi", "beartype.beartype")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before the fixtures of any scope."""
    folder = item.path.relative_to(Path(__file__).parent).parts[0]
    jaxtyping.config.update("jaxtyping_disable", folder not in ("unit", "property"))
