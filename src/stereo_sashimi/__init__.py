"""SaShiMi for raw stereo audio: exact likelihoods, convolution = recurrence, sample by sample.

Public API:
  AudioSpec            the audio a model reads: rate, channels, bits
  LanguageModelConfig  describes a model; `.build()` makes a LanguageModel
  load                 a LanguageModel from a training checkpoint
  Stream, Sampler      sampling frame by frame
  interop              checkpoints of the original S4 repository
"""

from stereo_sashimi import interop as interop
from stereo_sashimi.generation.sample import Sampler as Sampler
from stereo_sashimi.generation.stream import Stream as Stream
from stereo_sashimi.models.checkpoint import CheckpointError as CheckpointError
from stereo_sashimi.models.checkpoint import load as load
from stereo_sashimi.models.language_model import LanguageModel as LanguageModel
from stereo_sashimi.models.language_model import LanguageModelConfig as LanguageModelConfig
from stereo_sashimi.spec import AudioSpec as AudioSpec

__version__ = "0.1.0"
