"""Reading a model back from a training checkpoint: `load(path)`. Plain fields and tensors only, never code."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from stereo_sashimi.models.language_model import LanguageModel, LanguageModelConfig
from stereo_sashimi.ops.backend import resolve


class CheckpointError(ValueError):
    """A file that is no checkpoint of this package, or a damaged one. The message names the file."""


def read(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint file, unpickled with `weights_only=True`. Raises CheckpointError."""
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(
            f"There is no checkpoint {path}. Give a .ckpt file (checkpoint=<run>/checkpoints/last.ckpt)."
        )
    # torch.save writes zip archives; anything else would reach the unpickler of torch's old format.
    if not zipfile.is_zipfile(path):
        raise CheckpointError(f"{path} is truncated or not a checkpoint (no zip archive).")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} needs pickled code and is refused: only plain fields and tensors are read ({error})."
        ) from error
    except Exception as error:  # A damaged archive fails in many ways, from RuntimeError to IndexError.
        raise CheckpointError(f"{path} is damaged or not a checkpoint ({error}).") from error
    hyper_parameters = content.get("hyper_parameters") if isinstance(content, dict) else None
    if not isinstance(hyper_parameters, dict) or "model" not in hyper_parameters or "state_dict" not in content:
        raise CheckpointError(
            f"{path} is not a stereo-sashimi checkpoint: it has no model description. "
            "For state dicts of the original S4 repository see stereo_sashimi.interop.load_reference."
        )
    return content


def load(path: str | Path, backend: str = "auto") -> LanguageModel:
    """The language model of a training checkpoint, in eval mode on the CPU; `model.spec` is its audio format.

    - `path`: a .ckpt file written by `train.py`.
    - `backend`: kernel backend, see `ops/backend.py`.

    Raises CheckpointError (a ValueError) naming the file and what is wrong with it, and as `resolve` for the backend.
    """
    backend = resolve(backend)
    content = read(path)
    try:
        model = LanguageModelConfig.from_plain(content["hyper_parameters"]["model"]).build(backend)
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: its model description is not valid: {error}") from error
    prefix = "model."
    weights = {k.removeprefix(prefix): v for k, v in content["state_dict"].items() if k.startswith(prefix)}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(f"{path}: weights and model description disagree: {error}") from error
    return model.eval()
