"""Colour and course of a window of 16-bit PCM, over all channels together: four numbers beside its stereo image.

With P the Welch spectrum, summed over the channels, of bins at frequencies f, and e the energy of the frames:

- centroid = sum f P / sum P, where the spectrum has its middle: how bright a sound is;
- flatness = exp(mean ln P) / mean P, from 0 (tones) to 1 (white noise); S. Dubnov, IEEE Signal Process. Lett. 11, 2004;
- fall     = sum of e in the first half of the window over that in the second: how a sound dies away;
- crest    = largest |x| over the root mean square.
"""

import math

import numpy as np
from jaxtyping import Int16
from scipy import fft, signal

TIMBRE_UNITS = {"centroid_hz": "Hz", "flatness": "1", "fall_db": "dB", "crest_db": "dB"}


def timbre(
    pcm: Int16[np.ndarray, "frames channels"],
    sample_rate: int,
    *,
    spectra_per_second: int,
    silent: float,
    limit_db: float,
) -> dict[str, float]:
    """The numbers of one window; NaN where its mean square is at most `silent`, in LSB^2.

    - `spectra_per_second`: 1 / the length of a spectrum in seconds. `fall_db` is from -limit_db to limit_db.
    """
    x = pcm.T.astype(np.float64)
    # An offset is no sound.
    x -= x.mean(axis=1, keepdims=True)
    energy = (x**2).sum(axis=0)
    if energy.mean() <= silent * len(x):
        return dict.fromkeys(TIMBRE_UNITS, math.nan)
    length = min(len(pcm), fft.next_fast_len(math.ceil(sample_rate / spectra_per_second), real=True))
    frequencies, densities = signal.welch(x, sample_rate, nperseg=length)
    # Less than the noise of rounding: bins that are exactly zero would make any sound a tone.
    power = densities.sum(axis=0) + 0.01 / sample_rate
    half = len(energy) // 2
    first, second = energy[:half].sum() + silent, energy[half:].sum() + silent
    return {
        "centroid_hz": float(frequencies @ power / power.sum()),
        "flatness": float(np.exp(np.log(power).mean()) / power.mean()),
        "fall_db": float(np.clip(10 * math.log10(first / second), -limit_db, limit_db)),
        "crest_db": 10 * math.log10((x**2).max() / (x**2).mean()),
    }
