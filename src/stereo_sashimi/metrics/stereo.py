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
    - `clipped_share/<channel>`, `silent_share/<channel>`: part of the samples at -32768 or 32767, or |x| <= 1 LSB.
    - `dc_offset_lsb/<channel>`: mean, in steps of 16-bit PCM.
    - `correlation`, of two channels: Pearson's, -1 to 1; None if a channel is constant.
    - `side_mid_db`: energy of side (L - R) over energy of mid (L + R); None if either is 0, as for equal channels.
    - `level_difference_db`: rms of left minus rms of right; None if either is silent.

    Raises ValueError for what `check_pcm` refuses.
    """
    levels = Levels(sample_rate)
    levels.add(pcm)
    return levels.numbers()


class Levels:
    """`describe` of a clip that comes in blocks: exact sums, at constant memory."""

    def __init__(self, sample_rate: int) -> None:
        self._rate, self._frames = sample_rate, 0
        self._names: tuple[str, ...] = ()

    def add(self, pcm: Int16[np.ndarray, "frames channels"]) -> None:
        """Count the next frames, at least one. Raises ValueError for what `check_pcm` refuses, or other channels."""
        names = check_pcm(pcm, self._rate)
        if not self._frames:
            self._names, channels = names, len(names)
            self._sums, self._peaks, self._clipped, self._silent = np.zeros((4, channels), np.int64)
            # 64 bits are enough for 2**33 frames.
            self._products = np.zeros((channels, channels), np.int64)
        if names != self._names:
            raise ValueError(f"the clip has {len(self._names)} channels so far; got {len(names)}.")
        self._frames += len(pcm)
        self._sums += pcm.sum(0, dtype=np.int64)
        # einsum widens in small buffers, not whole arrays.
        self._products += [[np.einsum("f,f->", a, b, dtype=np.int64) for b in pcm.T] for a in pcm.T]
        self._peaks = np.maximum(self._peaks, np.maximum(pcm.max(0), -pcm.min(0).astype(np.int64)))
        self._clipped += np.count_nonzero((pcm == LOWEST) | (pcm == HIGHEST), axis=0)
        self._silent += np.count_nonzero((pcm >= -SILENT_LSB) & (pcm <= SILENT_LSB), axis=0)

    def numbers(self) -> dict[str, float | None]:
        """Those of `describe`, of everything that was added. Raises ValueError if that is nothing."""
        if not self._frames:
            raise ValueError("the clip has 0 frames; levels need at least 1.")
        frames, sums, products = self._frames, self._sums.tolist(), self._products.tolist()
        peaks, clipped, silent = self._peaks.tolist(), self._clipped.tolist(), self._silent.tolist()
        numbers: dict[str, float | None] = {"seconds": frames / self._rate}
        for c, name in enumerate(self._names):
            numbers |= {
                f"peak_dbfs/{name}": _decibels(peaks[c] ** 2, FULL_SCALE**2),
                f"rms_dbfs/{name}": _decibels(products[c][c], frames * FULL_SCALE**2),
                f"clipped_share/{name}": clipped[c] / frames,
                f"silent_share/{name}": silent[c] / frames,
                f"dc_offset_lsb/{name}": sums[c] / frames,
            }
        if len(self._names) == 2:
            (left, product), (_, right) = products
            numbers |= {
                "correlation": _correlation(frames, sums, [left, right], product),
                "side_mid_db": _decibels(left + right - 2 * product, left + right + 2 * product),
                "level_difference_db": _decibels(left, right),
            }
        return numbers


def _decibels(energy: int, reference: int) -> float | None:
    """10 log10(energy / reference), None if either is 0."""
    return 10 * math.log10(energy / reference) if energy and reference else None


def _correlation(frames: int, sums: list[int], energies: list[int], product: int) -> float | None:
    """Pearson's correlation from exact sums; None if a variance is 0."""
    variances = [frames * energy - total**2 for energy, total in zip(energies, sums, strict=True)]
    if 0 in variances:
        return None
    covariance = frames * product - sums[0] * sums[1]
    # The quotient of exact integers may still leave [-1, 1] by one rounding.
    return max(-1.0, min(1.0, covariance / (math.sqrt(variances[0]) * math.sqrt(variances[1]))))
