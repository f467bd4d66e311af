"""Audio files in a model's format: `read` gives PCM that the model can score or continue, `write` the way back."""

import os

import numpy as np

from stereo_sashimi.audio import io
from stereo_sashimi.spec import AudioSpec

PathLike = str | os.PathLike[str]


def read(path: PathLike, spec: AudioSpec, frames: int | None = None) -> np.ndarray:
    """The samples of a file as 16-bit PCM, int16 (frames, channels); nothing is resampled or mixed.

    - `spec`: the format of the model (`model.spec`). `frames`: read only so many, at least 1; None for all.

    Raises ValueError for another sample rate or number of channels than the model's, for a file without frames or
    with 24 or 32 bit integers, and as `audio.read_pcm`.
    """
    info = io.probe(path)
    if info.sample_rate != spec.sample_rate:
        raise ValueError(f"{path} has {info.sample_rate} Hz, the model {spec.sample_rate} Hz. Resample the file first.")
    if info.n_channels != spec.n_channels:
        raise ValueError(
            f"{path} has {info.n_channels} channel{'s' if info.n_channels > 1 else ''}, the model {spec.n_channels}. "
            "Give a file with the model's channels."
        )
    if info.frames == 0:
        raise ValueError(f"{path} has no frames. Give a file with audio.")
    if info.subtype in io.WIDE:
        raise ValueError(f"{path} has {info.subtype[4:]}-bit samples. Convert it to 16 bits first.")
    pcm, _ = io.read_pcm(path, 0, frames)
    return pcm


def write(path: PathLike, pcm: np.ndarray, spec: AudioSpec) -> None:
    """Write 16-bit PCM, int16 (frames, channels), as .wav or .flac (by suffix) at the model's sample rate.

    Raises ValueError for an array that is not in the format of `spec`, and as `audio.write_pcm`.
    """
    check_pcm(pcm, spec)
    io.write_pcm(path, pcm, spec.sample_rate)


def check_pcm(pcm: np.ndarray, spec: AudioSpec) -> None:
    """Raise ValueError unless `pcm` is int16 (frames, channels) with the channels of `spec` and at least one frame."""
    dtype = getattr(pcm, "dtype", type(pcm).__name__)
    if not isinstance(pcm, np.ndarray) or dtype != np.int16:
        raise ValueError(
            f"PCM is a numpy array of int16; got {dtype}. Read files with stereo_sashimi.read; "
            "stereo_sashimi.audio.float_to_pcm converts samples whose full scale is 1."
        )
    if pcm.ndim != 2 or pcm.shape[1] != spec.n_channels:
        raise ValueError(f"PCM of this model has the shape (frames, {spec.n_channels}); got {pcm.shape}.")
    if not len(pcm):
        raise ValueError(f"PCM has the shape {pcm.shape}: no frames.")
