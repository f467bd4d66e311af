"""Stereo image, timbre, loudness and faults of 16-bit PCM, one number per window, for the distances of `distances.py`.

Bands are sums of Welch spectra (P. D. Welch, IEEE Trans. Audio Electroacoust. 15(2), 1967; Hann windows of at least
1/16 s, half overlapping, each without its mean). With S_xy the cross spectrum in which `left conj(right)` is averaged:

- correlation = Re sum S_lr / sqrt(sum S_ll sum S_rr), the sums over the bins of the band;
- coherence   = sum w |S_lr|^2 / (S_ll S_rr) / sum w with w = sqrt(S_ll S_rr), so that empty bins count for nothing;
- phase       = arg sum S_lr.

Loudness is ITU-R BS.1770-4 as pyloudnorm has it.
"""

import itertools
import math

import numpy as np
import pyloudnorm
from jaxtyping import Bool, Complex128, Float64, Int16
from scipy import fft, signal

from stereo_sashimi.metrics.stereo import FULL_SCALE, HIGHEST, LOWEST, SILENT_LSB, check_pcm
from stereo_sashimi.metrics.timbre import TIMBRE_UNITS, timbre

WINDOW_SECONDS = 1.0
# Hz; two octaves a band, the last one reaches the Nyquist frequency.
BAND_EDGES = (0.0, 125.0, 500.0, 2000.0, 8000.0)
UNITS = {
    "correlation": "1",
    "coherence": "1",
    "phase_difference": "rad",
    "side_mid_db": "dB",
    "level_difference_db": "dB",
    "mono_loss_db": "dB",
    "loudness_lufs": "LUFS",
    "silent_share": "share",
    "clipped_share": "share",
    **TIMBRE_UNITS,
}
# Ratios of energies stay within this many dB, a little more than 16 bits have: windows that collapsed to mono have one.
LIMIT_DB = 100.0
# 1 / this is the least length of a spectrum in seconds: bins of 16 Hz, eight of them in the lowest band.
_SPECTRA_PER_SECOND = 16
# pyloudnorm's shelf is centred at 1500 Hz and needs room above that.
_LOUDNESS_RATE = 8000


def windows(pcm: Int16[np.ndarray, "frames channels"], sample_rate: int) -> dict[str, Float64[np.ndarray, " windows"]]:
    """Every metric of a clip of 1 or 2 channels, one value per window of `cuts`; NaN where it is not defined.

    - `loudness_lufs`: gated loudness of the window alone; NaN if all of it is gated (below -70 LUFS), for windows
      shorter than 0.4 s, and below 8000 Hz. Whole tenths of a second count.
    - `centroid_hz`, `flatness`, `fall_db`, `crest_db`: see `timbre.py`.
    - `silent_share`, `clipped_share`: part of the samples of all channels with |x| <= 1 LSB, or at -32768 or 32767.

    Two channels also have, with energies about the mean, so that an offset is no sound:

    - `side_mid_db`: energy of side (L - R) over energy of mid (L + R), from -100 (equal channels) to 100 (inverted).
    - `level_difference_db`: energy of left over energy of right, from -100 to 100.
    - `mono_loss_db`: energy of (L + R) / 2 over the mean energy of L and R, from -100 (inverted) to 0 (equal).
    - `correlation/<band>`: from -1 to 1.
    - `coherence/<band>`: from 0 to 1. K independent spectra of independent channels leave about 1 / K, near 0.034 for
      1 s; NaN if the window holds a single spectrum.
    - `phase_difference/<band>`: phase of left minus phase of right in radians, from -pi to pi; positive if right comes
      later. Any angle may come out where the channels are not coherent.

    Bands are those of `bands`. A signal is silent if its mean square is at most 1 LSB^2: the first three are NaN if
    both channels are, a band is NaN if either channel is silent in it.

    Raises ValueError for what `check_pcm` refuses.
    """
    check_pcm(pcm, sample_rate)
    meter = pyloudnorm.Meter(sample_rate) if sample_rate >= _LOUDNESS_RATE else None
    rows = [_measure(pcm[a:b], sample_rate, meter) for a, b in cuts(len(pcm), sample_rate)]
    return {name: np.array([row[name] for row in rows], np.float64) for name in rows[0]}


def cuts(frames: int, sample_rate: int) -> list[tuple[int, int]]:
    """First frame and end of each window: whole windows, and the rest if it is at least half a window.

    A clip of 1 frame or more that is shorter than a window is one window.
    """
    length = max(1, round(WINDOW_SECONDS * sample_rate))
    found = [(first, first + length) for first in range(0, frames - length + 1, length)]
    rest = frames % length
    if 2 * rest >= length or (not found and frames):
        found.append((frames - rest, frames))
    return found


def bands(sample_rate: int) -> dict[str, tuple[float, float]]:
    """Name, lowest frequency and end (Hz, excluded) of each band; the end of the last one is infinity."""
    names = [*(f"{low:.0f}-{end:.0f}" for low, end in itertools.pairwise(BAND_EDGES)), f"{BAND_EDGES[-1]:.0f}-nyquist"]
    low = [edge for edge in BAND_EDGES if 2 * edge < sample_rate]
    # The last band holds the bin at the Nyquist frequency, whichever band it is.
    return dict(zip(names, itertools.pairwise([*low, math.inf]), strict=False))


def _measure(
    pcm: Int16[np.ndarray, "frames channels"], sample_rate: int, meter: pyloudnorm.Meter | None
) -> dict[str, float]:
    """The numbers of one window."""
    numbers = {
        "loudness_lufs": _loudness(pcm, meter),
        "silent_share": float(np.mean((pcm >= -SILENT_LSB) & (pcm <= SILENT_LSB))),
        "clipped_share": float(np.mean((pcm == LOWEST) | (pcm == HIGHEST))),
    }
    numbers |= timbre(pcm, sample_rate, spectra_per_second=_SPECTRA_PER_SECOND, silent=SILENT_LSB**2, limit_db=LIMIT_DB)
    return numbers | _energies(pcm) | _bands(pcm, sample_rate) if pcm.shape[1] == 2 else numbers


def _loudness(pcm: Int16[np.ndarray, "frames channels"], meter: pyloudnorm.Meter | None) -> float:
    if meter is None or (tenths := 10 * len(pcm) // meter.rate) < 4:
        return math.nan
    # pyloudnorm rounds the number of its blocks, 0.1 s apart; with a longer rest the last block would reach past the
    # end and count what it lacks as silence.
    loudness = meter.integrated_loudness(pcm[: -(-tenths * meter.rate // 10)] / FULL_SCALE)
    return float(loudness) if math.isfinite(loudness) else math.nan


def _energies(pcm: Int16[np.ndarray, "frames 2"]) -> dict[str, float]:
    """Ratios of broadband energies, from exact integers: `frames` times the energy about the mean."""
    frames, wide = len(pcm), pcm.astype(np.int64)
    sums, products = wide.sum(axis=0), wide.T @ wide

    def energy(a: int, b: int) -> int:
        # Python's integers: frames^2 times a square may need more than 64 bits.
        return frames * int(products[a, b]) - int(sums[a]) * int(sums[b])

    left, right, both = energy(0, 0), energy(1, 1), energy(0, 1)
    if max(left, right) <= (frames * SILENT_LSB) ** 2:
        return dict.fromkeys(("side_mid_db", "level_difference_db", "mono_loss_db"), math.nan)
    side, mid = left + right - 2 * both, left + right + 2 * both
    return {
        "side_mid_db": _decibels(side, mid),
        "level_difference_db": _decibels(left, right),
        "mono_loss_db": _decibels(mid, 2 * (left + right)),
    }


def _decibels(energy: int, reference: int) -> float:
    """10 log10(energy / reference) within the limit; at most one of them is 0."""
    if energy == 0 or reference == 0:
        return LIMIT_DB if energy else -LIMIT_DB
    return max(-LIMIT_DB, min(LIMIT_DB, 10 * math.log10(energy / reference)))


def _bands(pcm: Int16[np.ndarray, "frames 2"], sample_rate: int) -> dict[str, float]:
    """Correlation, coherence and phase difference of every band."""
    length = min(len(pcm), fft.next_fast_len(math.ceil(sample_rate / _SPECTRA_PER_SECOND), real=True))
    x = pcm.T.astype(np.float64)
    # scipy conjugates its first argument. Sums of power_xy over all bins are means of x y, in LSB^2.
    frequencies, density = signal.csd(x[None, :], x[:, None], sample_rate, nperseg=length)
    power = density * (sample_rate / length)
    averaged = len(pcm) >= 2 * length - length // 2
    numbers: dict[str, float] = {}
    for name, (low, end) in bands(sample_rate).items():
        values = _band(power[:, :, (frequencies >= low) & (frequencies < end)], averaged)
        numbers |= {f"{metric}/{name}": value for metric, value in values.items()}
    return numbers


def _band(power: Complex128[np.ndarray, "2 2 bins"], averaged: bool) -> dict[str, float]:
    """The numbers of one band; `averaged` tells that `power` is a mean of two or more spectra."""
    left, right, cross = power[0, 0].real, power[1, 1].real, power[0, 1]
    if min(left.sum(), right.sum()) <= SILENT_LSB**2:
        return dict.fromkeys(("correlation", "coherence", "phase_difference"), math.nan)
    total, weights = cross.sum(), np.sqrt(left * right)
    used: Bool[np.ndarray, " bins"] = weights > 0
    coherence = math.nan
    if averaged and used.any():
        coherence = np.sum(np.abs(cross[used]) ** 2 / weights[used]) / weights.sum()
    return {
        # Rounding may leave the ranges, the inequality of Cauchy and Schwarz does not.
        "correlation": float(np.clip(total.real / math.sqrt(left.sum() * right.sum()), -1, 1)),
        "coherence": float(np.clip(coherence, 0, 1)),
        "phase_difference": float(np.angle(total)),
    }
