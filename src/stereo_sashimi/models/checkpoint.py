"""Reading models from files: `load(path)` takes checkpoints, runs and exported models. Plain fields, never code.

What exported models look like is in `export.py`; how a description becomes a model, in `weights.py`.
"""

import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from stereo_sashimi.models import exported as export
from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.models.weights import CheckpointError as CheckpointError
from stereo_sashimi.models.weights import build, describe
from stereo_sashimi.ops.s4_response import resolve
from stereo_sashimi.pretrained import FOLDER as PRETRAINED_FOLDER
from stereo_sashimi.pretrained import NAME as PRETRAINED

_OF_THE_ORIGINAL = (
    "If it comes from the original S4 repository: stereo_sashimi.interop.load_lightning reads its Lightning "
    "checkpoints, stereo_sashimi.interop.load_reference its state dicts."
)


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
            f"{path} needs pickled code and is refused ({_cause(error)}): only plain fields and tensors are read. "
            f"{_OF_THE_ORIGINAL}"
        ) from error
    except Exception as error:  # A damaged archive fails in many ways, from RuntimeError to IndexError.
        raise CheckpointError(f"{path} is damaged or not a checkpoint ({error}).") from error
    hyper_parameters = content.get("hyper_parameters") if isinstance(content, dict) else None
    if not _is_ours(content, hyper_parameters):
        raise CheckpointError(
            f"{path} is not a stereo-sashimi checkpoint: it has no model description. {_OF_THE_ORIGINAL}"
        )
    return content


def load(path: str | Path, backend: str = "auto") -> LanguageModel:
    """The language model of a file or folder, in eval mode on the CPU; `model.spec` is its audio format.

    - `path`: a run folder (its best weights, or the last where no validation ran), a .ckpt file written by `train.py`,
      a model written by `save`: its folder, its config.json or its .safetensors file; or `"pretrained"`, the model
      that comes with this package.
    - `backend`: kernel backend, see `ops/s4_response.py`.

    The model has the precision of its weights, float32 or float64. Raises CheckpointError (a ValueError) naming the
    file and what is wrong with it, and as `resolve` for the backend.
    """
    backend = resolve(backend)
    path = PRETRAINED_FOLDER if path == PRETRAINED else Path(path)
    if path.is_dir():
        path = _inside(path)
    if path.suffix in (".safetensors", ".json"):
        return export.load(path, backend)
    return model_of(read(path), path, backend)


def model_of(content: dict[str, Any], path: str | Path, backend: str = "auto") -> LanguageModel:
    """The language model of a checkpoint's content, as `load`; `path` is for messages."""
    config = describe(content["hyper_parameters"]["model"], str(path))
    prefix = "model."
    weights = {k.removeprefix(prefix): v for k, v in content["state_dict"].items() if str(k).startswith(prefix)}
    return build(config, weights, str(path), resolve(backend))


def _cause(error: pickle.UnpicklingError) -> str:
    """What the unpickler met. The rest of torch's message advises to run it."""
    text = str(error)
    name = re.search(r"GLOBAL (\S+)", text)
    if name is not None:
        return f"it names {name[1]}"
    reason = re.search(r"WeightsUnpickler error:\s*(.*)", text)
    return reason[1] if reason is not None else text.partition("\n")[0]


def _is_ours(content: Any, hyper_parameters: Any) -> bool:
    return (
        isinstance(hyper_parameters, dict)
        and isinstance(content.get("state_dict"), dict)
        # The original's hyper_parameters have a section of this name too, but it describes no audio.
        and isinstance(hyper_parameters.get("model"), dict)
        and "_name_" not in hyper_parameters["model"]
    )


def _inside(folder: Path) -> Path:
    """The file that stands for a run folder or an exported model."""
    names = (export.CONFIG, "checkpoints/best.ckpt", "checkpoints/last.ckpt")
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(
        f"{folder} holds no model: no {', '.join(names)}. Give a run folder, an exported model or a .ckpt file."
    )
