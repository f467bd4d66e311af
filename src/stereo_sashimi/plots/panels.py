"""The panels of a sheet: waveforms and spectrograms, one a channel, and the goniometer, which shows a stereo image."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Int16
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from scipy.signal import ShortTimeFFT
from scipy.signal.windows import hann

from stereo_sashimi.metrics.stereo import FULL_SCALE, HIGHEST, LOWEST, check_pcm

# More columns than a panel has pixels would cost time and show nothing.
COLUMNS = 1000
CHANNEL_COLOURS = {"mono": "#2563a8", "left": "#2563a8", "right": "#0f7b6c"}
CLIP_COLOUR = "#d0021b"
PROMPT_COLOUR = "#a8118f"
# Below this length seconds need four digits and more.
_MILLISECONDS_BELOW = 0.1
# The noise of 16-bit rounding lies near -127 dBFS in a bin of a 2048-point window; below is nothing to see.
FLOOR_DBFS = -120.0
# Speech and music are near stationary for some 50 ms: 2048 frames at 44.1 kHz.
_WINDOW_SECONDS = 0.05
_SHORTEST_WINDOW = 32
# Slices of one call, so that an hour of audio needs no more memory than a minute.
_BLOCK_SLICES = 2048
# Cells from the centre to the edge, at most: one cell is then about two pixels of the sheet.
RADIUS = 80
# Up to here (0.01 of full scale) the axes count LSB, in plain numbers.
_LSB_UP_TO = 328
_GUIDE_COLOUR = "#9a9a9a"


def waveform(pcm: Int16[np.ndarray, "frames channels"], sample_rate: int, axes: Sequence[Axes]) -> None:
    """Draw channel c on `axes[c]`: time in seconds (milliseconds below 0.1 s), amplitude from -1 to 1.

    A file longer than the panel has pixels is drawn as its envelope, the smallest and the largest sample of each
    column. Samples at -32768 or 32767 are marked in red at the edge of the panel, and counted.

    Raises ValueError for PCM that `metrics.stereo.check_pcm` refuses.
    """
    names, factor = _time_axes(axes, pcm, sample_rate)
    for name, channel, panel in zip(names, pcm.T, axes, strict=True):
        frames, values = envelope(channel, COLUMNS)
        marker = "." if len(channel) <= COLUMNS // 10 else ""
        panel.plot(frames / sample_rate * factor, values, color=CHANNEL_COLOURS[name], linewidth=0.7, marker=marker)
        for limit, edge in ((LOWEST, -1.0), (HIGHEST, 1.0)):
            # One mark a column is enough to see, however many samples are clipped in it.
            columns = np.unique(np.flatnonzero(channel == limit) * COLUMNS // len(channel))
            times = columns * (len(channel) / COLUMNS) / sample_rate * factor
            panel.plot(times, np.full(len(times), edge), "|", color=CLIP_COLOUR, markersize=7, clip_on=False)
        clipped = np.count_nonzero((channel == LOWEST) | (channel == HIGHEST))
        if clipped:
            box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.5}
            label = f"{clipped:,} clipped"
            panel.text(0.995, 0.9, label, transform=panel.transAxes, ha="right", va="top", color=CLIP_COLOUR, bbox=box)
        panel.set_ylim(-1.05, 1.05)
        panel.set_yticks([-1, 0, 1])
        panel.set_ylabel(name)
        panel.axhline(0, color="#808080", linewidth=0.4, zorder=0)


def envelope(
    channel: Int16[np.ndarray, " frames"], columns: int
) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]]:
    """Points of a line that covers the channel: frame numbers, and amplitudes in [-1, 1].

    Up to 2 * `columns` frames: every sample. Beyond: two points a column, its smallest and its largest sample.
    """
    if len(channel) <= 2 * columns:
        return np.arange(len(channel), dtype=np.float64), channel / FULL_SCALE
    starts = np.arange(columns, dtype=np.int64) * len(channel) // columns
    pairs = np.stack([np.minimum.reduceat(channel, starts), np.maximum.reduceat(channel, starts)], axis=1)
    return np.repeat(starts, 2).astype(np.float64), pairs.reshape(-1) / FULL_SCALE


def _time_axes(
    axes: Sequence[Axes], pcm: Int16[np.ndarray, "frames channels"], sample_rate: int
) -> tuple[tuple[str, ...], float]:
    """Let every panel run over the whole clip and label the last one: names of the channels, factor from seconds."""
    names, seconds = check_pcm(pcm, sample_rate), len(pcm) / sample_rate
    factor, unit = (1000.0, "ms") if seconds < _MILLISECONDS_BELOW else (1.0, "s")
    for panel in axes:
        panel.set_xlim(0, seconds * factor)
        panel.tick_params(labelbottom=panel is axes[-1])
    axes[-1].set_xlabel(f"time ({unit})")
    return names, factor


def mark_prompt(prompt_frames: int, frames: int, axes: Sequence[Axes]) -> None:
    """Draw where a prompt ends and what was sampled begins, across panels that run over a clip of so many frames."""
    place = prompt_frames / frames * axes[0].get_xlim()[1]
    for panel in axes:
        # Seen on white as on the dark of a spectrogram.
        panel.axvline(place, color="white", linewidth=2.6, zorder=3)
        panel.axvline(place, color=PROMPT_COLOUR, linewidth=1.4, linestyle=(0, (4, 2)), zorder=3)
    for text, side, shift in (("prompt", "right", -3), ("sampled", "left", 3)):
        axes[0].annotate(
            text, (place, 1.0), xytext=(shift, 2), xycoords=axes[0].get_xaxis_transform(),
            textcoords="offset points", ha=side, va="bottom", color=PROMPT_COLOUR, fontsize="small",
        )  # fmt: skip


def spectrogram(pcm: Int16[np.ndarray, "frames channels"], sample_rate: int, axes: Sequence[Axes]) -> list[AxesImage]:
    """Draw channel c on `axes[c]`: time as in `waveform`, frequency in kHz, level in dBFS from FLOOR_DBFS to 0.

    Gives the images, which share one colour scale, for a colour bar.
    Raises ValueError for PCM that `metrics.stereo.check_pcm` refuses.
    """
    names, factor = _time_axes(axes, pcm, sample_rate)
    images = []
    for name, channel, panel in zip(names, pcm.T, axes, strict=True):
        levels, frames_per_column, hop = spectrum_levels(channel, sample_rate, COLUMNS)
        # Pixels are centred on what they show: half a hop before frame 0, half a bin below 0 Hz.
        start = -hop / 2 / sample_rate * factor
        width = levels.shape[1] * frames_per_column / sample_rate * factor
        nyquist = sample_rate / 2000
        half_bin = nyquist / (len(levels) - 1) / 2
        extent = (start, start + width, -half_bin, nyquist + half_bin)
        scale: dict[str, Any] = {"cmap": "magma", "vmin": FLOOR_DBFS, "vmax": 0.0}
        images.append(panel.imshow(levels, extent=extent, origin="lower", aspect="auto", **scale))
        panel.set_xlim(0, len(pcm) / sample_rate * factor)
        panel.set_ylim(0, nyquist)
        # The topmost number would touch the lowest one of the panel above.
        panel.yaxis.set_major_locator(MaxNLocator(5, prune="upper"))
        panel.set_ylabel(f"{name} (kHz)")
    return images


def spectrum_levels(
    channel: Int16[np.ndarray, " frames"], sample_rate: int, columns: int
) -> tuple[Float[np.ndarray, "bins slices"], int, int]:
    """Level of each frequency over time in dBFS, at least FLOOR_DBFS; a full-scale sine reaches 0.

    Hann windows a quarter apart, the first centred on frame 0, zeros around the clip; bins go from 0 Hz to half the
    sample rate. In a long clip the power of neighbouring slices is averaged until there are at most `columns`.
    Gives the levels, the frames that one column stands for, and the hop of the windows in frames.
    """
    # The power of two next to 50 ms, or less where a clip would not hold four of them.
    usual = 2 ** round(np.log2(_WINDOW_SECONDS * sample_rate))
    window = max(_SHORTEST_WINDOW, min(usual, 2 ** int(np.log2(max(1.0, len(channel) / 4)))))
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


def goniometer(pcm: Int16[np.ndarray, "frames channels"], axes: Axes) -> None:
    """Draw how often each pair (left, right) occurs, turned so that equal channels are a vertical line.

    Up is mid (L + R) / 2, right is side (R - L) / 2: left alone lies on the diagonal marked L, right alone on R,
    opposite channels on the horizontal. The panel is scaled to the loudest frame, in parts of full scale, or in LSB
    below 0.01 of it; colours are logarithmic. One channel has no stereo image, and the panel says so.

    Raises ValueError for PCM that `metrics.stereo.check_pcm` refuses.
    """
    names = check_pcm(pcm)
    axes.set_aspect("equal", adjustable="box")
    axes.set_title("stereo image", fontsize="medium")
    if len(names) == 1:
        axes.set(xlim=(-1, 1), ylim=(-1, 1), xticks=[], yticks=[])
        axes.text(0.5, 0.5, "mono", transform=axes.transAxes, ha="center", va="center", color="#606060", fontsize=16)
        return
    # Few frames in small cells would be specks: about one cell a frame at least.
    counts, cell = density(pcm, min(RADIUS, max(10, math.isqrt(len(pcm)))))
    # Cells count L + R in LSB; the panel shows half of it.
    limit, unit = len(counts) / 2 * cell / 2, "LSB"
    if limit > _LSB_UP_TO:
        limit, unit = limit / FULL_SCALE, "full scale = 1"
    for end in (-limit, limit):
        axes.plot([-limit, limit], [-end, end], color=_GUIDE_COLOUR, linewidth=0.6)
    square, colours = (-limit, limit, -limit, limit), LogNorm(1, max(10, int(counts.max())))
    # Empty cells are masked, which leaves them transparent.
    shown = np.ma.masked_equal(counts, 0)
    axes.imshow(shown, "viridis", colours, extent=square, origin="lower", interpolation="nearest", zorder=2)
    # Room for the letters outside of anything that can be drawn.
    edge = 1.18 * limit
    axes.set(xlim=(-edge, edge), ylim=(-edge, edge), xlabel=f"side (R - L) / 2, {unit}", ylabel="mid (L + R) / 2")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    for letter, x in (("L", -1.09 * limit), ("R", 1.09 * limit)):
        axes.text(x, 1.09 * limit, letter, ha="center", va="center", fontweight="bold")
    if not pcm.any():
        axes.text(0.5, 0.3, "silence", transform=axes.transAxes, ha="center", va="center", color="#606060")


def density(pcm: Int16[np.ndarray, "frames 2"], radius: int) -> tuple[Int[np.ndarray, "mid side"], int]:
    """Frames in each cell of a square grid over mid and side, zero in the middle, up to the loudest frame.

    There are at most 2 * `radius` + 1 cells a side, fewer if the clip is so quiet that each pair has its own cell.
    Gives the counts and the width of a cell in steps of L + R. L + R and R - L are both even or both odd, so the
    width is even: then every cell holds equally many of the pairs that can occur, and the grid shows no moire.
    """
    left, right = pcm[:, 0].astype(np.int32), pcm[:, 1].astype(np.int32)
    mid, side = left + right, right - left
    peak = max(int(np.abs(mid).max()), int(np.abs(side).max()))
    cell = 2 * max(1, -(-peak // (2 * radius)))
    radius = min(radius, max(2, -(-peak // cell)))
    row, column = ((axis + cell // 2) // cell + radius for axis in (mid, side))
    size = 2 * radius + 1
    return np.bincount(row * size + column, minlength=size * size).reshape(size, size), cell
