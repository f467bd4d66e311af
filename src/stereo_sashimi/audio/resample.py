"""Sample rate conversion of whole clips; the data set (`data/dataset.py`) calls it once per file.

Two engines: soxr (the SoX resampler, the default) and torchaudio (windowed sinc, Hann).
"""

import math

import numpy as np
from jaxtyping import Float32

METHODS = ("soxr", "torchaudio")


class ResampleError(ValueError):
    """The sample rate conversion that was asked for cannot be done."""


def resampled_length(frames: int, from_rate: int, to_rate: int) -> int:
    """Frames after conversion: ceil(frames * to_rate / from_rate), in exact integer arithmetic."""
    return -(-frames * to_rate // from_rate)


def resample(
    x: Float32[np.ndarray, "frames channels"], from_rate: int, to_rate: int, method: str = "soxr"
) -> Float32[np.ndarray, "new_frames channels"]:
    """Convert a clip from `from_rate` to `to_rate` frames per second; silence is assumed around it.

    - `x`: float32 samples, full scale is 1. Peaks between samples may come out above full scale.
    - `method`: `"soxr"` (very high quality) or `"torchaudio"` (needs a working torchaudio).

    Gives `resampled_length(frames, from_rate, to_rate)` frames; equal rates give `x` itself.
    Raises ResampleError for an unknown method, a rate below 1 Hz, or a torchaudio that cannot be imported.
    """
    if method not in METHODS:
        raise ResampleError(f"resampler must be one of {', '.join(METHODS)}; got {method!r} (dataset.resampler).")
    if min(from_rate, to_rate) < 1:
        raise ResampleError(f"sample rates must be at least 1 Hz; got {from_rate} to {to_rate} (dataset.sample_rate).")
    if from_rate == to_rate or x.shape[0] == 0:
        return x
    length = resampled_length(x.shape[0], from_rate, to_rate)
    return _soxr(x, from_rate, to_rate, length) if method == "soxr" else _torchaudio(x, from_rate, to_rate, length)


def _soxr(x: np.ndarray, from_rate: int, to_rate: int, length: int) -> np.ndarray:
    import soxr

    # soxr rounds its output length down; the silence that follows the clip fills the last frame.
    tail = np.zeros((2 * math.ceil(from_rate / to_rate) + 2, x.shape[1]), dtype=np.float32)
    y = soxr.resample(np.concatenate([x, tail]), from_rate, to_rate, quality="VHQ")
    return np.ascontiguousarray(y[:length], dtype=np.float32)


def _torchaudio(x: np.ndarray, from_rate: int, to_rate: int, length: int) -> np.ndarray:
    try:
        import torchaudio.functional
    except (ImportError, OSError) as error:
        raise ResampleError(
            f"dataset.resampler=torchaudio, but torchaudio cannot be imported here ({error}).\n"
            "  Use dataset.resampler=soxr, or install the torchaudio build that belongs to this torch."
        ) from error
    import torch

    y = torchaudio.functional.resample(torch.from_numpy(np.ascontiguousarray(x.T)), from_rate, to_rate)
    return np.ascontiguousarray(y.numpy().T[:length])
