"""Waveforms, one panel a channel, with clipped samples marked; the same panels by frequency are in `spectrogram.py`."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int16
from matplotlib.axes import Axes

from stereo_sashimi.metrics.stereo import FULL_SCALE, HIGHEST, LOWEST, check_pcm

# More columns than a panel has pixels would cost time and show nothing.
COLUMNS = 1000
CHANNEL_COLOURS = {"mono": "#2563a8", "left": "#2563a8", "right": "#0f7b6c"}
CLIP_COLOUR = "#d0021b"
# Below this length seconds need four digits and more.
_MILLISECONDS_BELOW = 0.1


def waveform(pcm: Int16[np.ndarray, "frames channels"], sample_rate: int, axes: Sequence[Axes]) -> None:
    """Draw channel c on `axes[c]`: time in seconds (milliseconds below 0.1 s), amplitude from -1 to 1.

    A file longer than the panel has pixels is drawn as its envelope, the smallest and the largest sample of each
    column. Samples at -32768 or 32767 are marked in red at the edge of the panel, and counted.

    Raises ValueError for PCM that `metrics.stereo.check_pcm` refuses, or if there is not one axes for each channel.
    """
    names = check_pcm(pcm, sample_rate)
    check_axes(axes, len(names))
    factor = time_axis(axes, len(pcm), sample_rate)
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


def time_axis(axes: Sequence[Axes], frames: int, sample_rate: int) -> float:
    """Let every panel run over the whole clip, label the last one, and give the factor from seconds to its unit."""
    seconds = frames / sample_rate
    factor, unit = (1000.0, "ms") if seconds < _MILLISECONDS_BELOW else (1.0, "s")
    for panel in axes:
        panel.set_xlim(0, seconds * factor)
        panel.tick_params(labelbottom=panel is axes[-1])
    axes[-1].set_xlabel(f"time ({unit})")
    return factor


def check_axes(axes: Sequence[Axes], n_channels: int) -> None:
    """Raise ValueError unless there is one axes for each channel."""
    if len(axes) != n_channels:
        raise ValueError(f"one axes for each channel is needed: {n_channels}; got {len(axes)}.")
