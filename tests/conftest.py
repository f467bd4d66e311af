"""`pytest --shapes`: beartype enforces jaxtyping's annotations in the whole package. CI runs the property tests so, and
the unit tests of layers, ops and distributions.

Without it the package runs as its users run it: a check of every call takes longer than most steps of a recurrence.
"""

import os
import signal

# Two busy cores make OpenMP threads spin; tests are small enough for one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
import torch

# Without a CUDA device numpy runs the GPU programs. Triton asks when it is imported, which Lightning does.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


# A job in the background of a script is started with Ctrl-C ignored, and so would be all that the tests start.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# Whose first tests wait for numba, for a minute together: they come first, so that one of two workers compiles and the
# other, which begins with the second half, finds on disk what it needs later.
COMPILING = ("unit/codec/", "unit/experts/", "unit/generation/", "unit/commands/", "e2e/")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not any(f"tests/{place}" in item.nodeid for place in COMPILING))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--shapes", action="store_true", help="check the shapes of all annotated arguments")


def pytest_configure(config: pytest.Config) -> None:
    """Before a test imports the package."""
    if config.getoption("--shapes"):
        from jaxtyping import install_import_hook

        install_import_hook("stereo_sashimi", "beartype.beartype")
