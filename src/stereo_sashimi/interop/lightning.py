"""Whole Lightning checkpoints of the original S4 repository -> our mono language models.

`pickled.py` reads the file without running any of it, `versions.py` brings names from before version 4.0 up
to date, `describe.py` finds out what the model is, `reference.py` builds and fills it.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from stereo_sashimi.interop.describe import agree, claimed, shown
from stereo_sashimi.interop.pickled import read_lightning
from stereo_sashimi.interop.reference import load_reference
from stereo_sashimi.interop.versions import modernise
from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.models.locate import CheckpointError
from stereo_sashimi.models.weights import is_whole


def load_lightning(path: str | Path, config: Mapping[str, Any] | None = None) -> LanguageModel:
    """The mono language model of a Lightning checkpoint that the original S4 repository (or its stereo fork) wrote.

    - `path`: a .ckpt file with `state_dict` (encoder, model, decoder), names of version 4 or before. Optimizer,
      callbacks and loops are left aside, prefixes of DistributedDataParallel and torch.compile are taken off.
    - `config`: fields as for `load_reference`. They come before those of the file's own `hyper_parameters`, and are
      needed where the file has none: sizes are read off the tensors, but `dt_transform` (softplus in the original's
      experiments), `quantization` (default mu-law) and `sample_rate` (default 16000 Hz) are not in them.

    Returns the model in eval mode on the CPU, with the precision of the tensors; `.double()` makes it exact.
    `model.spec.normalize` is minmax: the original scales every clip by its own minimum and maximum.

    Raises CheckpointError, naming the file, if it is missing, damaged, holds pickled code, is of another program, or
    its description and its tensors disagree; then with both values.
    """
    content = read_lightning(path)
    try:
        state_dict = _weights(content["state_dict"])
        given = dict(config or {})
        claims = claimed(content.get("hyper_parameters"), given)
        if not claims and not given:
            raise CheckpointError(
                "it has no hyper_parameters to say what the model is. Give config={'dt_transform': .., "
                "'quantization': .., 'sample_rate': ..}, or all fields of load_reference."
            )
        if any(key.endswith("kernel.log_dt") for key in state_dict):
            # Before version 4 there was exp only, and no such field.
            claims.pop("dt_transform", None)
        state_dict, fields = modernise(state_dict, claims | given)
        sizes = shown(state_dict)
        agree(sizes, given, "config")
        agree(sizes, claims, "its hyper_parameters")
        model = load_reference(state_dict, fields | sizes)
    except (ValueError, TypeError) as error:  # TypeError: values of other types than the original's.
        raise CheckpointError(f"{path}: {error}") from error
    assert isinstance(model, LanguageModel)
    return model


def _weights(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """Names as the original's modules have them. Raises CheckpointError for other programs and non-tensors."""
    weights: dict[str, Tensor] = {}
    for key, tensor in state_dict.items():
        if not isinstance(key, str) or not isinstance(tensor, Tensor):
            raise CheckpointError(f"state_dict[{key!r}] is a {type(tensor).__name__}, not a tensor.")
        if not is_whole(tensor):
            raise CheckpointError(f"state_dict[{key!r}] is no tensor with values of its own.")
        weights[re.sub(r"(^|\.)(?:module|_orig_mod)\.", r"\1", key)] = tensor
    if any(key.startswith(("model.backbone.", "model.embedding.")) for key in weights):
        raise CheckpointError("this is a checkpoint of stereo-sashimi itself; read it with stereo_sashimi.load.")
    return weights
