"""Spectrograms in dBFS, one panel a channel, over the same time axis as the panels of `waveform.py`."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int16
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from scipy.signal import ShortTimeFFT
from scipy.signal.windows import hann

from stereo_sashimi.metrics.stereo import FULL_SCALE, check_pcm
from stereo_sashimi.plots.waveform import COLUMNS, check_axes, time_axis

# The noise of 16-bit rounding lies near -127 dBFS in a bin of a 2048-point window; below is nothing to see.
FLOOR_DBFS = -120.0
# Speech and music are near stationary for some 50 ms: 2048 frames at 44.1 kHz.
_WINDOW_SECONDS = 0.05
_SHORTEST_WINDOW = 32
# Slices of one call, so that an hour of audio needs no more memory than a minute.
_BLOCK_SLICES = 2048


def spectrogram(pcm: Int16[np.ndarray, "frames channels"], sample_rate: int, axes: Sequence[Axes]) -> list[AxesImage]:
    """Draw channel c on `axes[c]`: time as in `waveform`, frequency in kHz, level in dBFS from FLOOR_DBFS to 0.

    Gives the images, which share one colour scale, for a colour bar.
    Raises ValueError for PCM that `metrics.stereo.check_pcm` refuses, or if there is not one axes for each channel.
    """
    names = check_pcm(pcm, sample_rate)
    check_axes(axes, len(names))
    factor = time_axis(axes, len(pcm), sample_rate)
    images = []
    for name, channel, panel in zip(names, pcm.T, axes, strict=True):
        levels, frames_per_column, hop = spectrum_levels(channel, sample_rate, COLUMNS)
        # Pixels are centred on what they show: half a hop before frame 0, half a bin below 0 Hz.
        start = -hop / 2 / sample_rate * factor
        width = levels.shape[1] * frames_per_column / sample_rate * factor
        nyquist = sample_rate / 2000
        half_bin = nyquist / (len(levels) - 1) / 2
        images.append(
            panel.imshow(
                levels,
                extent=(start, start + width, -half_bin, nyquist + half_bin),
                origin="lower",
                aspect="auto",
                cmap="magma",
                vmin=FLOOR_DBFS,
                vmax=0.0,
            )
        )
        panel.set_xlim(0, len(pcm) / sample_rate * factor)
        panel.set_ylim(0, nyquist)
        # The topmost number would touch the lowest one of the panel above.
        panel.yaxis.set_major_locator(MaxNLocator(5, prune="upper"))
        panel.set_ylabel(f"{name} (kHz)")
    return images


def window_frames(frames: int, sample_rate: int) -> int:
    """Length of the window: the power of two next to 50 ms, or less where a clip would not hold four of them."""
    usual = 2 ** round(np.log2(_WINDOW_SECONDS * sample_rate))
    short = 2 ** int(np.log2(max(1.0, frames / 4)))
    return max(_SHORTEST_WINDOW, min(usual, short))


def spectrum_levels(
    channel: Int16[np.ndarray, " frames"], sample_rate: int, columns: int
) -> tuple[Float[np.ndarray, "bins slices"], int, int]:
    """Level of each frequency over time in dBFS, at least FLOOR_DBFS; a full-scale sine reaches 0.

    Hann windows a quarter apart, the first centred on frame 0, zeros around the clip; bins go from 0 Hz to half the
    sample rate. In a long clip the power of neighbouring slices is averaged until there are at most `columns`.
    Gives the levels, the frames that one column stands for, and the hop of the windows in frames.
    """
    window = window_frames(len(channel), sample_rate)
    hop = window // 4
    # "onesided2X" counts the negative frequencies too, so that a sine has its amplitude and not half of it.
    transform = ShortTimeFFT(
        hann(window, sym=False), hop, sample_rate, fft_mode="onesided2X", scale_to="magnitude", phase_shift=None
    )
    # ShortTimeFFT refuses clips shorter than half a window.
    signal = np.pad(channel, (0, max(0, window - len(channel)))) / FULL_SCALE
    slices = (len(channel) - 1) // hop + 1
    group = -(-slices // columns)
    block = group * max(1, _BLOCK_SLICES // group)
    power = []
    for first in range(0, slices, block):
        part = np.abs(transform.stft(signal, first, min(first + block, slices))) ** 2
        starts = np.arange(0, part.shape[1], group)
        counts = np.diff(np.append(starts, part.shape[1]))
        power.append(np.add.reduceat(part, starts, axis=1) / counts)
    floor = 10 ** (FLOOR_DBFS / 10)
    return 10 * np.log10(np.maximum(np.concatenate(power, axis=1), floor)), group * hop, hop
