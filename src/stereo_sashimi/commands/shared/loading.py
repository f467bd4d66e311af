"""The model of a command: found by `checkpoint=`, loaded, put on a device, and described in a line."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from stereo_sashimi.commands.shared.overrides import override
from stereo_sashimi.commands.shared.runs import find_checkpoint, relative
from stereo_sashimi.models.checkpoint import CheckpointError, load, read
from stereo_sashimi.models.language_model import LanguageModel

# The order in which they are offered: what was written before last.ckpt first.
NAMES = ("previous.ckpt", "last.ckpt", "best.ckpt")


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
    if name == "mps":
        raise ValueError("device=mps: Apple's GPUs (MPS) have no float64, which the models need. Use device=cpu.")
    if name not in ("cpu", "cuda"):
        raise ValueError(f"device must be auto, cpu or cuda; got {name!r}.")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device=cuda needs a CUDA device and there is none. Use device=auto or device=cpu.")
    return torch.device(name)


def model_line(model: LanguageModel) -> str:
    """A line about a model, for people."""
    spec, n = model.spec, sum(p.numel() for p in model.parameters())
    return (
        f"model {f'{n / 1e6:.2f} M' if n > 1e5 else f'{n / 1e3:.1f} k'} parameters  {spec.n_channels} channels  "
        f"{spec.sample_rate} Hz  {spec.bits} bit {spec.quantization}  decoder {model.config.decoder.kind}, "
        f"{model.config.decoder.coupling}"
    )


@contextmanager
def offering(path: str | Path, key: str = "checkpoint") -> Iterator[None]:
    """Add to a CheckpointError about `path` which checkpoint of the same folder is whole, and the override for it."""
    try:
        yield
    except CheckpointError as error:
        found = intact(Path(path))
        if found is None:
            raise
        other, step = found
        message = f"{error}\n  {other.name} beside it is whole (step {step}). Use {override(key, relative(other))}"
        raise CheckpointError(message) from error


def intact(path: Path) -> tuple[Path, int] | None:
    """The first other checkpoint in the folder of `path` that can be read as a whole, and its step."""
    for name in NAMES:
        other = path.with_name(name)
        if other.name == path.name or not other.is_file():
            continue
        try:
            return other, int(read(other)["global_step"])
        except (CheckpointError, KeyError, TypeError):
            continue
    return None
