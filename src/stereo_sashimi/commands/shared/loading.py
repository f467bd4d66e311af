"""The model of a command: found by `checkpoint=`, loaded, put on a device, and described in a line."""

from pathlib import Path

import torch

from stereo_sashimi.commands.shared.recover import offering
from stereo_sashimi.commands.shared.runs import find_checkpoint
from stereo_sashimi.models.checkpoint import load
from stereo_sashimi.models.language_model import LanguageModel


def load_model(
    given: str | None, runs: str, backend: str = "auto", key: str = "checkpoint"
) -> tuple[Path, LanguageModel]:
    """The file that `find_checkpoint` means by `given`, and its model; errors name a whole checkpoint beside it."""
    path = find_checkpoint(given, runs, key)
    with offering(path, key):
        return path, load(path, backend)


def device_of(name: str) -> torch.device:
    """The device that `device=` names. Raises ValueError for another name, or where there is no such device."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name not in ("cpu", "cuda"):
        raise ValueError(f"device must be auto, cpu or cuda; got {name!r}.")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device=cuda needs a CUDA device and there is none. Use device=auto or device=cpu.")
    return torch.device(name)


def model_line(model: LanguageModel) -> str:
    """A line about a model, for people."""
    spec = model.spec
    return (
        f"model {sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters  {spec.n_channels} channels  "
        f"{spec.sample_rate} Hz  {spec.bits} bit {spec.quantization}  decoder {model.config.decoder.kind}, "
        f"{model.config.decoder.coupling}"
    )
