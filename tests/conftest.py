"""Shapes are checked while tests run: jaxtyping's annotations are enforced by beartype for the whole package."""

import os

# Two busy cores make OpenMP threads spin; tests are small enough for one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("MPLBACKEND", "Agg")

import torch
from jaxtyping import install_import_hook

# Without a CUDA device numpy runs the GPU programs. Triton asks when it is imported, which Lightning does.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

install_import_hook("stereo_sashimi", "beartype.beartype")
