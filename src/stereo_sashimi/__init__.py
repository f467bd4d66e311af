"""SaShiMi for raw stereo audio: exact likelihoods, convolution = recurrence, sample by sample.

Public API:
  AudioSpec            the audio a model reads: rate, channels, bits
  LanguageModelConfig  describes a model; `.build()` makes a LanguageModel
  load                 a LanguageModel from a training checkpoint; CheckpointError
  Stream, Sampler      sampling frame by frame
  interop              checkpoints of the original S4 repository

Names are imported when first used, so that preparing data starts without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stereo_sashimi import interop as interop
    from stereo_sashimi.generation.sample import Sampler as Sampler
    from stereo_sashimi.generation.stream import Stream as Stream
    from stereo_sashimi.models.checkpoint import CheckpointError as CheckpointError
    from stereo_sashimi.models.checkpoint import load as load
    from stereo_sashimi.models.language_model import LanguageModel as LanguageModel
    from stereo_sashimi.models.language_model import LanguageModelConfig as LanguageModelConfig
    from stereo_sashimi.spec import AudioSpec as AudioSpec

__version__ = "0.1.0"

_HOME = {
    "AudioSpec": "spec",
    "CheckpointError": "models.checkpoint",
    "LanguageModel": "models.language_model",
    "LanguageModelConfig": "models.language_model",
    "Sampler": "generation.sample",
    "Stream": "generation.stream",
    "load": "models.checkpoint",
}
__all__ = [
    "AudioSpec",
    "CheckpointError",
    "LanguageModel",
    "LanguageModelConfig",
    "Sampler",
    "Stream",
    "__version__",
    "interop",
    "load",
]


def __getattr__(name: str) -> Any:
    if name == "interop":
        return import_module("stereo_sashimi.interop")
    if name in _HOME:
        return getattr(import_module(f"stereo_sashimi.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
