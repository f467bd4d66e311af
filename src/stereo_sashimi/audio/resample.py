"""Sample rate conversion of whole clips by soxr (the SoX resampler) or torchaudio (windowed sinc, Hann).

Both take what lies outside a clip for silence, which makes a click of a clip that begins or ends in the middle of
sound; so its first and last values are held on both sides, converted too, and cut off again.
"""

import math

import numpy as np
from jaxtyping import Float32

METHODS = ("soxr", "torchaudio")
# Frames at the lower of the two rates that the longer of the engines' filters reaches.
_REACH = 256


class ResampleError(ValueError):
    """The sample rate conversion that was asked for cannot be done."""


def resampled_length(frames: int, from_rate: int, to_rate: int) -> int:
    """Frames after conversion: ceil(frames * to_rate / from_rate), in exact integer arithmetic."""
    return -(-frames * to_rate // from_rate)


def resample(
    x: Float32[np.ndarray, "frames channels"], from_rate: int, to_rate: int, method: str = "soxr"
) -> Float32[np.ndarray, "new_frames channels"]:
    """Convert a clip to another rate; its ends are taken to go on at their last value.

    Args:
        x: Samples, full scale is 1. Peaks between samples may come out above full scale.
        from_rate, to_rate: Frames per second.
        method: `"soxr"` (very high quality) or `"torchaudio"` (needs a working torchaudio).

    Returns:
        `resampled_length(frames, from_rate, to_rate)` frames; for equal rates `x` itself.

    Raises:
        ResampleError: An unknown method, a rate below 1 Hz, or a torchaudio that cannot be imported.
    """
    if method not in METHODS:
        raise ResampleError(f"resampler must be one of {', '.join(METHODS)}; got {method!r} (dataset.resampler).")
    if min(from_rate, to_rate) < 1:
        raise ResampleError(f"sample rates must be at least 1 Hz; got {from_rate} to {to_rate} (dataset.sample_rate).")
    if from_rate == to_rate or x.shape[0] == 0:
        return x
    length = resampled_length(x.shape[0], from_rate, to_rate)
    # A whole number of frames at both rates, so that the clip keeps its place on the new grid.
    step = from_rate // math.gcd(from_rate, to_rate)
    margin = -(-_REACH * max(from_rate, to_rate) // (to_rate * step)) * step
    held = np.pad(np.asarray(x, dtype=np.float32), ((margin, margin), (0, 0)), mode="edge")
    if method == "soxr":
        import soxr

        y = soxr.resample(held, from_rate, to_rate, quality="VHQ")
    else:
        y = _torchaudio(held, from_rate, to_rate)
    first = margin * to_rate // from_rate
    return np.ascontiguousarray(y[first : first + length], dtype=np.float32)


def _torchaudio(x: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    try:
        import torchaudio.functional
    except (ImportError, OSError) as error:
        raise ResampleError(
            f"dataset.resampler=torchaudio, but torchaudio cannot be imported here ({error}).\n"
            "  Use dataset.resampler=soxr, or install the torchaudio build that belongs to this torch."
        ) from error
    import torch

    y: np.ndarray = torchaudio.functional.resample(torch.from_numpy(x.T.copy()), from_rate, to_rate).numpy()
    return y.T
