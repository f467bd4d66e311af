"""Shapes are checked while tests run: jaxtyping's annotations are enforced by beartype for the whole package."""

import os

# Two busy cores make OpenMP threads spin; tests are small enough for one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("MPLBACKEND", "Agg")

from jaxtyping import install_import_hook

install_import_hook("stereo_sashimi", "beartype.beartype")
