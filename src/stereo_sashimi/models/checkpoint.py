"""Reading models from files: `load(path)` takes checkpoints, runs and exported models. Plain fields, never code.

Which file a path means is in `locate.py`, how .ckpt files are opened in `archive.py`, what exported models look like in
`exported.py`, how a description becomes a model in `weights.py`.
"""

from pathlib import Path
from typing import Any

from stereo_sashimi.models import exported as export
from stereo_sashimi.models.archive import read_archive
from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.models.locate import CheckpointError as CheckpointError
from stereo_sashimi.models.locate import model_file
from stereo_sashimi.models.weights import build, describe
from stereo_sashimi.ops.s4_response import resolve

_OF_THE_ORIGINAL = (
    "If it comes from the original S4 repository: stereo_sashimi.interop.load_lightning reads its Lightning "
    "checkpoints, stereo_sashimi.interop.load_reference its state dicts."
)


def read(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint file, as `read_archive`. Raises CheckpointError, also for one of another program."""
    content = read_archive(path, _OF_THE_ORIGINAL)
    hyper_parameters = content.get("hyper_parameters") if isinstance(content, dict) else None
    # The original's hyper_parameters have a section of this name too, but it describes no audio.
    model = hyper_parameters.get("model") if isinstance(hyper_parameters, dict) else None
    if not isinstance(model, dict) or "_name_" in model or not isinstance(content.get("state_dict"), dict):
        raise CheckpointError(
            f"{path} is not a stereo-sashimi checkpoint: it has no model description. {_OF_THE_ORIGINAL}"
        )
    return content


def load(path: str | Path, backend: str = "auto") -> LanguageModel:
    """The language model of a file or folder, in eval mode on the CPU; `model.spec` is its audio format.

    - `path`: a run folder (its best weights, or the last where no validation ran), a folder of runs (its newest
      finished one, named on standard error), a .ckpt file written by `train.py`, a model written by `save`: its folder,
      its config.json or its .safetensors file; `"hub:user/name@revision"`, fetched from the Hugging Face Hub; or
      `"pretrained"`, the model that comes with this package.
    - `backend`: kernel backend, see `ops/s4_response.py`.

    The model has the precision of its weights, float32 or float64. Raises CheckpointError (a ValueError) naming the
    file and what is wrong with it, and as `resolve` for the backend.
    """
    backend = resolve(backend)
    path = model_file(path)
    if path.suffix in (".safetensors", ".json"):
        return export.load(path, backend)
    return model_of(read(path), path, backend)


def model_of(content: dict[str, Any], path: str | Path, backend: str = "auto") -> LanguageModel:
    """The language model of a checkpoint's content, as `load`; `path` is for messages."""
    config = describe(content["hyper_parameters"]["model"], str(path))
    prefix = "model."
    weights = {k.removeprefix(prefix): v for k, v in content["state_dict"].items() if str(k).startswith(prefix)}
    return build(config, weights, str(path), resolve(backend))
