"""Audio files in a model's format: `read` gives PCM that the model can score or continue, `write` the way back."""

import numpy as np

from stereo_sashimi.audio import io
from stereo_sashimi.audio.quantize import float_to_pcm
from stereo_sashimi.audio.resample import resample as resample_clip
from stereo_sashimi.audio.resample import resampled_length
from stereo_sashimi.spec import AudioSpec

# Frames at the lower of the two rates, more than the resampler's filter reaches.
_AHEAD = 2048


def read(
    path: io.PathLike,
    spec: AudioSpec,
    frames: int | None = None,
    resample: bool = False,
    requantize: bool = False,
) -> np.ndarray:
    """The samples of a file as 16-bit PCM, int16 (frames, channels); nothing is mixed, nor converted unasked.

    Args:
        path: The file.
        spec: The format of the model (`model.spec`).
        frames: Read only so many, at least 1, counted at the model's rate; None reads all.
        resample: Convert another sample rate to the model's.
        requantize: Round 24 and 32 bits to 16.

    Raises:
        ValueError: Another sample rate or number of channels than the model's, no frames, 24 or 32 bit integers
            without `requantize`, or a file that `audio.read_pcm` refuses.
    """
    with io.open_audio(path) as file:
        file.check_end()
        info = file.info
        if info.sample_rate != spec.sample_rate and not resample:
            raise ValueError(
                f"{path} has {info.sample_rate} Hz, the model {spec.sample_rate} Hz. Resample the file first, or have "
                "it done: resample=True, for a prompt prompt_resample=true."
            )
        if info.n_channels != spec.n_channels:
            count = f"{info.n_channels} channel{'s' if info.n_channels > 1 else ''}"
            raise ValueError(
                f"{path} has {count}, the model {spec.n_channels}. Give a file with the model's channels: "
                f"`ffmpeg -i in.wav -ac {spec.n_channels} out.wav` mixes or copies them."
            )
        if info.frames == 0:
            raise ValueError(f"{path} has no frames. Give a file with audio.")
        if info.subtype in io.WIDE and not requantize:
            raise ValueError(f"{path} has {info.subtype[4:]}-bit samples. Convert it to 16 bits first.")
        if info.sample_rate != spec.sample_rate:
            return _read_resampled(file, spec.sample_rate, frames, requantize)
        return file.read(0, frames, requantize=requantize)[0]


def _read_resampled(file: io.AudioReader, rate: int, frames: int | None, requantize: bool) -> np.ndarray:
    """The first `frames` frames of a file at another rate; they do not depend on how many of them are asked for."""
    info = file.info
    length = resampled_length(info.frames, info.sample_rate, rate)
    frames = length if frames is None else frames
    if frames > length:
        raise io.AudioError(
            f"{info.path}: {frames} frames at {rate} Hz were asked for, but the file has {length} of them."
        )
    # The filter looks ahead; what lies further behind is not read.
    ahead = _AHEAD * max(info.sample_rate, rate) // rate
    source_frames = min(info.frames, resampled_length(frames, rate, info.sample_rate) + ahead)
    pcm, _ = file.read(0, source_frames, requantize=requantize)
    samples = resample_clip(pcm.astype(np.float32) / 32768, info.sample_rate, rate)
    return float_to_pcm(samples[:frames])[0]


def write(path: io.PathLike, pcm: np.ndarray, spec: AudioSpec) -> None:
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
