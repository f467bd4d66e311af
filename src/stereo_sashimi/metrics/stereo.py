"""Levels and stereo image of 16-bit PCM as JSON-safe numbers; `plots/sheet.py` shows them beside the pictures.

Sums are exact integers (16-bit products in 64 bits), so "constant" and "equal" mean exactly that.
"""

import math

import numpy as np
from jaxtyping import Int16

from stereo_sashimi.spec import AudioSpec

FULL_SCALE = 32768
# The two ends of 16-bit PCM: a sample that lies there may have been cut off.
LOWEST, HIGHEST = -32768, 32767
# |x| <= 1 LSB counts as silence: digital zero and what dither of the smallest size leaves of it.
SILENT_LSB = 1


def check_pcm(pcm: Int16[np.ndarray, "frames channels"], sample_rate: int = 1) -> tuple[str, ...]:
    """The names of the channels: ("mono",) or ("left", "right").

    Raises ValueError unless `pcm` is int16 (frames, channels) with at least one frame and 1 or 2 channels, and
    `sample_rate`, where it matters to the caller, a positive integer.
    """
    if pcm.dtype != np.int16 or pcm.ndim != 2 or pcm.shape[1] not in (1, 2):
        raise ValueError(
            f"16-bit PCM is an int16 array (frames, channels) with 1 or 2 channels; got {pcm.dtype} {pcm.shape}.\n"
            "  Use audio.io.read_pcm, which gives this shape for mono too."
        )
    if len(pcm) == 0:
        raise ValueError("the clip has 0 frames; levels and pictures need at least 1.")
    return AudioSpec(sample_rate, pcm.shape[1], 16).channel_names


def describe(pcm: Int16[np.ndarray, "frames channels"], sample_rate: int) -> dict[str, float | None]:
    """Levels and stereo image of a clip of 1 or 2 channels. Every value is a finite float or None.

    - `seconds`: the length.
    - `peak_dbfs/<channel>`, `rms_dbfs/<channel>`: re 32768, so a full-scale sine has rms -3.01; None if all is 0.
    - `clipped_share/<channel>`: part of the samples at -32768 or 32767, from 0 to 1.
    - `silent_share/<channel>`: part of the samples with |x| <= 1 LSB, from 0 to 1.
    - `dc_offset_lsb/<channel>`: mean, in steps of 16-bit PCM.

    Channels are named "mono", or "left" and "right"; two channels also have

    - `correlation`: Pearson's, -1 to 1, of left and right; None if a channel is constant.
    - `side_mid_db`: energy of side (L - R) over energy of mid (L + R); None if either is 0, as for equal channels.
    - `level_difference_db`: rms of left minus rms of right; None if either is silent.

    Raises ValueError for what `check_pcm` refuses.
    """
    names = check_pcm(pcm, sample_rate)
    frames = len(pcm)
    sums = [int(s) for s in pcm.sum(axis=0, dtype=np.int64)]
    energies = [_dot(channel, channel) for channel in pcm.T]
    numbers: dict[str, float | None] = {"seconds": frames / sample_rate}
    for name, channel, total, energy in zip(names, pcm.T, sums, energies, strict=True):
        peak = max(-int(channel.min()), int(channel.max()))
        clipped = int(np.count_nonzero((channel == LOWEST) | (channel == HIGHEST)))
        silent = int(np.count_nonzero((channel >= -SILENT_LSB) & (channel <= SILENT_LSB)))
        numbers |= {
            f"peak_dbfs/{name}": _decibels(peak**2, FULL_SCALE**2),
            f"rms_dbfs/{name}": _decibels(energy, frames * FULL_SCALE**2),
            f"clipped_share/{name}": clipped / frames,
            f"silent_share/{name}": silent / frames,
            f"dc_offset_lsb/{name}": total / frames,
        }
    if len(names) == 2:
        product = _dot(pcm[:, 0], pcm[:, 1])
        both = energies[0] + energies[1]
        numbers |= {
            "correlation": _correlation(frames, sums, energies, product),
            "side_mid_db": _decibels(both - 2 * product, both + 2 * product),
            "level_difference_db": _decibels(energies[0], energies[1]),
        }
    return numbers


def _dot(a: Int16[np.ndarray, " frames"], b: Int16[np.ndarray, " frames"]) -> int:
    """Exact inner product; 64 bits are enough for 2**33 frames. einsum widens in small buffers, not whole arrays."""
    return int(np.einsum("f,f->", a, b, dtype=np.int64))


def _decibels(energy: int, reference: int) -> float | None:
    """10 log10(energy / reference), None if either is 0."""
    if energy == 0 or reference == 0:
        return None
    return 10 * math.log10(energy / reference)


def _correlation(frames: int, sums: list[int], energies: list[int], product: int) -> float | None:
    """Pearson's correlation from exact sums; None if a variance is 0."""
    variances = [frames * energy - total**2 for energy, total in zip(energies, sums, strict=True)]
    if 0 in variances:
        return None
    covariance = frames * product - sums[0] * sums[1]
    # The quotient of exact integers may still leave [-1, 1] by one rounding.
    return max(-1.0, min(1.0, covariance / (math.sqrt(variances[0]) * math.sqrt(variances[1]))))
