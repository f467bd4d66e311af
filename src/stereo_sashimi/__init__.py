"""SaShiMi for raw stereo audio: exact likelihoods, convolution = recurrence, sample by sample.

Public API (docs/python.md):
  load, save           a LanguageModel from a run, a checkpoint or an exported model; an exported model
  read, write          16-bit PCM of an audio file in the model's format; a file from PCM
  score, generate      the bits that a model needs for a recording; a recording that it makes or continues
  AudioSpec            the audio a model reads: rate, channels, bits
  LanguageModelConfig  describes a model; `.build()` makes a LanguageModel
  encode, decode       a recording as the bytes of a lossless .ssc file, and back
  Stream, Sampler      sampling frame by frame
  TrackScore           what `score` returns
  CheckpointError      a file that holds no model
  CodecError           a recording that cannot be coded, or bytes that cannot be decoded
  interop              checkpoints of the original S4 repository

Names are imported when first used, so that preparing data starts without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from stereo_sashimi.version import __version__ as __version__

if TYPE_CHECKING:
    from stereo_sashimi import interop as interop
    from stereo_sashimi.audio.files import read as read
    from stereo_sashimi.audio.files import write as write
    from stereo_sashimi.codec import CodecError as CodecError
    from stereo_sashimi.codec import decode as decode
    from stereo_sashimi.codec import encode as encode
    from stereo_sashimi.distributions.sampler import Sampler as Sampler
    from stereo_sashimi.generation.results import TrackScore as TrackScore
    from stereo_sashimi.generation.sampling import generate as generate
    from stereo_sashimi.generation.scoring import score as score
    from stereo_sashimi.generation.stream import Stream as Stream
    from stereo_sashimi.models.checkpoint import load as load
    from stereo_sashimi.models.exported import save as save
    from stereo_sashimi.models.language_model import LanguageModel as LanguageModel
    from stereo_sashimi.models.language_model_config import LanguageModelConfig as LanguageModelConfig
    from stereo_sashimi.models.weights import CheckpointError as CheckpointError
    from stereo_sashimi.spec import AudioSpec as AudioSpec

_HOME = {
    "AudioSpec": "spec",
    "CheckpointError": "models.weights",
    "CodecError": "codec",
    "LanguageModel": "models.language_model",
    "LanguageModelConfig": "models.language_model_config",
    "Sampler": "distributions.sampler",
    "Stream": "generation.stream",
    "TrackScore": "generation.results",
    "decode": "codec",
    "encode": "codec",
    "generate": "generation.sampling",
    "load": "models.checkpoint",
    "read": "audio.files",
    "save": "models.exported",
    "score": "generation.scoring",
    "write": "audio.files",
}
__all__ = [
    "AudioSpec",
    "CheckpointError",
    "CodecError",
    "LanguageModel",
    "LanguageModelConfig",
    "Sampler",
    "Stream",
    "TrackScore",
    "__version__",
    "decode",
    "encode",
    "generate",
    "interop",
    "load",
    "read",
    "save",
    "score",
    "write",
]


def __getattr__(name: str) -> Any:
    if name == "interop":
        return import_module("stereo_sashimi.interop")
    if name in _HOME:
        return getattr(import_module(f"stereo_sashimi.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
