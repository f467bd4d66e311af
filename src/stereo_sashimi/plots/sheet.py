"""The sheet: waveforms, spectrograms, stereo image and numbers of one clip on a page, and how it is saved."""

import io
import os
from pathlib import Path

import numpy as np
from jaxtyping import Int16
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stereo_sashimi.audio.io import write_whole
from stereo_sashimi.metrics.stereo import check_pcm, describe
from stereo_sashimi.plots.panels import goniometer, mark_prompt, spectrogram, waveform

# The page in inches, from its upper left corner; a fixed plan keeps panels in place whatever is drawn in them.
_WIDTH, _DPI = 13.0, 110
_HEIGHT, _TOP, _BOTTOM, _GAP = 7.6, 0.6, 0.6, 0.15
_PANEL_LEFT, _PANEL_WIDTH = 0.75, 7.9
# All waveforms together get this part of the height of all panels.
_WAVE_SHARE = 0.36
_BAR_LEFT, _BAR_WIDTH = 8.85, 0.14
_SIDE_LEFT, _SIDE_WIDTH = 10.15, 2.65
_TABLE_LEFT, _TABLE_TOP = 9.75, 4.3
_LONGEST_TITLE = 100

# Row of the table, key of metrics.stereo.describe, format, unit.
_PER_CHANNEL = (
    ("peak", "peak_dbfs", "{:z.2f}", "dBFS"),
    ("rms", "rms_dbfs", "{:z.2f}", "dBFS"),
    ("clipped", "clipped_share", "{:.4%}", ""),
    ("silent", "silent_share", "{:.1%}", ""),
    ("dc offset", "dc_offset_lsb", "{:z.1f}", "LSB"),
)
_STEREO = (
    ("correlation", "correlation", "{:+z.3f}", ""),
    ("side / mid", "side_mid_db", "{:+z.2f}", "dB"),
    ("left - right", "level_difference_db", "{:+z.2f}", "dB"),
)


def sheet(pcm: Int16[np.ndarray, "frames channels"], sample_rate: int, title: str, prompt_frames: int = 0) -> Figure:
    """One page about a clip of 1 or 2 channels: waveforms, spectrograms, stereo image, numbers.

    A line marks the end of the first `prompt_frames`, 0 for none. A title of more than 100 characters is cut. The
    figure needs no closing (no pyplot).
    Raises ValueError for PCM that `metrics.stereo.check_pcm` refuses.
    """
    names = check_pcm(pcm, sample_rate)
    figure = Figure(figsize=(_WIDTH, _HEIGHT), dpi=_DPI)
    # A title is a name, not a formula: "$" stands for itself.
    shown = title if len(title) <= _LONGEST_TITLE else title[: _LONGEST_TITLE - 3] + "..."
    figure.text(_PANEL_LEFT / _WIDTH, 1 - 0.2 / _HEIGHT, shown, fontsize="large", va="top", parse_math=False)
    room = (_HEIGHT - _TOP - _BOTTOM - _GAP * (2 * len(names) - 1)) / len(names)
    heights = [room * _WAVE_SHARE] * len(names) + [room * (1 - _WAVE_SHARE)] * len(names)
    tops = [_TOP + sum(heights[:i]) + i * _GAP for i in range(len(heights))]
    panels = [_place(figure, _PANEL_LEFT, top, _PANEL_WIDTH, tall) for top, tall in zip(tops, heights, strict=True)]
    waves, spectra = panels[: len(names)], panels[len(names) :]
    waveform(pcm, sample_rate, waves)
    # The spectrograms below carry the time axis for all panels.
    waves[-1].tick_params(labelbottom=False)
    waves[-1].set_xlabel("")
    images = spectrogram(pcm, sample_rate, spectra)
    if prompt_frames:
        mark_prompt(prompt_frames, len(pcm), panels)
    first = tops[len(names)]
    bar = _place(figure, _BAR_LEFT, first, _BAR_WIDTH, _HEIGHT - _BOTTOM - first)
    figure.colorbar(images[0], cax=bar)
    bar.set_title("dBFS", fontsize="medium", loc="left")
    figure.align_ylabels(panels)
    goniometer(pcm, _place(figure, _SIDE_LEFT, _TOP, _SIDE_WIDTH, _SIDE_WIDTH))
    text = numbers_table(pcm, sample_rate)
    place = (_TABLE_LEFT / _WIDTH, 1 - _TABLE_TOP / _HEIGHT)
    figure.text(*place, text, family="monospace", fontsize="medium", va="top", linespacing=1.3)
    return figure


def _place(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes of a size in inches, at a distance from the left and upper edge of the page."""
    bottom = _HEIGHT - top - height
    return figure.add_axes((left / _WIDTH, bottom / _HEIGHT, width / _WIDTH, height / _HEIGHT))


def numbers_table(pcm: Int16[np.ndarray, "frames channels"], sample_rate: int) -> str:
    """The numbers of `metrics.stereo.describe` as lines of text for a monospaced font; a value of None is a dash."""
    names = check_pcm(pcm, sample_rate)
    numbers = describe(pcm, sample_rate)

    def cell(key: str, style: str) -> str:
        value = numbers[key]
        return f"{'-' if value is None else style.format(value):>9}"

    frames = "1 frame" if len(pcm) == 1 else f"{len(pcm):,} frames"
    lines = [f"{frames} at {sample_rate:,} Hz", f"{numbers['seconds']:.4g} s", ""]
    lines.append(f"{'':12}" + "".join(f"{name:>9}" for name in names))
    for row, key, style, unit in _PER_CHANNEL:
        lines.append(f"{row:12}" + "".join(cell(f"{key}/{name}", style) for name in names) + f" {unit}")
    if len(names) == 2:
        lines.append("")
        lines += [f"{row:12}{cell(key, style)} {unit}" for row, key, style, unit in _STEREO]
    return "\n".join(line.rstrip() for line in lines)


def save_png(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a whole `.png` file or none. Raises ValueError for another suffix, AudioError if it cannot be written."""
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"{path}: pictures are written as .png; got suffix {path.suffix!r}.")
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    write_whole(path, picture.getvalue())
