"""Audio as integers: files (`io`), channels (`channels`), codes (`quantize`), sample rates (`resample`)."""

from stereo_sashimi.audio.channels import ChannelError, check_channels, n_channels, to_channels
from stereo_sashimi.audio.io import (
    AUDIO_SUFFIXES,
    AudioError,
    AudioInfo,
    float_to_pcm,
    probe,
    read_pcm,
    write_pcm,
)
from stereo_sashimi.audio.quantize import decode, encode
from stereo_sashimi.audio.resample import ResampleError, resample, resampled_length

__all__ = [
    "AUDIO_SUFFIXES",
    "AudioError",
    "AudioInfo",
    "ChannelError",
    "ResampleError",
    "check_channels",
    "decode",
    "encode",
    "float_to_pcm",
    "n_channels",
    "probe",
    "read_pcm",
    "resample",
    "resampled_length",
    "to_channels",
    "write_pcm",
]
