"""Reading the golden files: numbers computed by the original implementation (tests/golden/README.md)."""

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

FOLDER = Path(__file__).parent
LAYERS = ["a1_s4_dplr_tied_raw", "a2_s4_dplr_tied_fit", "a3_s4_dplr_untied_exp_grow", "a4_s4_dplr_nssm2_trunc"]
DIAGONAL = ["b1_s4d_lin_zoh", "b2_s4d_legs_bilinear_untied"]
BACKBONES = [
    "c1_sashimi_modular_p44_raw",
    "c2_sashimi_modular_p44_fit",
    "d1_sashimi_standalone_unet",
    "d2_sashimi_standalone_nounet",
    "d3_unet_modular",
    "e1_sashimi_modular_p22_L",
]
NETWORKS = LAYERS + DIAGONAL + BACKBONES


def load(name: str) -> tuple[dict[str, Tensor], dict]:
    """All tensors of one file, and its config."""
    path = FOLDER / f"{name}.safetensors"
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
    return load_file(path), json.loads(metadata.get("config", "{}"))


def state_of(tensors: dict[str, Tensor], prefix: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """The reference's state dict in the given precision; integers stay."""
    return {
        key.removeprefix(prefix): value.to(dtype) if value.is_floating_point() else value
        for key, value in tensors.items()
        if key.startswith(prefix)
    }
