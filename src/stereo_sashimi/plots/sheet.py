"""The sheet: waveforms, spectrograms, stereo image and numbers of one clip on a page, and how it is saved.

The panels are in `waveform.py`, `spectrogram.py` and `goniometer.py`, the numbers in `metrics/stereo.py`.
"""

import os
import secrets
from pathlib import Path

import numpy as np
from jaxtyping import Int16
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from stereo_sashimi.metrics.stereo import check_pcm, describe
from stereo_sashimi.plots.goniometer import goniometer
from stereo_sashimi.plots.spectrogram import spectrogram
from stereo_sashimi.plots.waveform import waveform

_WIDTH, _DPI = 13.0, 110
# Inches: a waveform lane, a spectrogram lane, and what title, labels and gaps take.
_LANES = (1.0, 1.9)
_MARGIN = 1.1
# The stereo image and the table stand above each other and need this much.
_LOWEST_SHEET = 6.2

# Row of the table, key of metrics.stereo.describe, format, unit.
_PER_CHANNEL = (
    ("peak", "peak_dbfs", "{:.2f}", "dBFS"),
    ("rms", "rms_dbfs", "{:.2f}", "dBFS"),
    ("clipped", "clipped_share", "{:.3%}", ""),
    ("silent", "silent_share", "{:.1%}", ""),
    ("dc offset", "dc_offset_lsb", "{:.1f}", "LSB"),
)
_STEREO = (
    ("correlation", "correlation", "{:+.3f}", ""),
    ("side / mid", "side_mid_db", "{:+.2f}", "dB"),
    ("left - right", "level_difference_db", "{:+.2f}", "dB"),
)


def sheet(pcm: Int16[np.ndarray, "frames channels"], sample_rate: int, title: str) -> Figure:
    """One page about a clip of 1 or 2 channels: waveforms, spectrograms, stereo image, numbers.

    The figure belongs to the caller alone (no pyplot): it needs no closing. Save it with `save_png`.
    Raises ValueError for PCM that `metrics.stereo.check_pcm` refuses.
    """
    names = check_pcm(pcm, sample_rate)
    lanes = [height for height in _LANES for _ in names]
    figure = Figure(figsize=(_WIDTH, max(_LOWEST_SHEET, sum(lanes) + _MARGIN)), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    # A title is a name, not a formula: "$" stands for itself.
    figure.suptitle(title, fontsize="large", fontweight="bold", parse_math=False)
    left, right = figure.add_gridspec(1, 2, width_ratios=[2.6, 1])
    rows = left.subgridspec(len(lanes), 1, height_ratios=lanes)
    axes = [figure.add_subplot(row) for row in rows]
    waves, spectra = axes[: len(names)], axes[len(names) :]
    waveform(pcm, sample_rate, waves)
    # The spectrograms below carry the time axis for all lanes.
    waves[-1].tick_params(labelbottom=False)
    waves[-1].set_xlabel("")
    images = spectrogram(pcm, sample_rate, spectra)
    figure.colorbar(images[0], ax=spectra, label="dBFS", pad=0.01, aspect=30)
    figure.align_ylabels(axes)
    top, bottom = right.subgridspec(2, 1, height_ratios=[1.25, 1])
    goniometer(pcm, sample_rate, figure.add_subplot(top))
    table = figure.add_subplot(bottom)
    table.set_axis_off()
    # Out of the layout: the text fills its own axes, and would shrink them if it had to fit as a label.
    text = numbers_table(pcm, sample_rate)
    table.text(0.0, 1.0, text, family="monospace", fontsize="medium", va="top", in_layout=False)
    return figure


def numbers_table(pcm: Int16[np.ndarray, "frames channels"], sample_rate: int) -> str:
    """The numbers of `metrics.stereo.describe` as lines of text for a monospaced font; a value of None is a dash."""
    names = check_pcm(pcm, sample_rate)
    numbers = describe(pcm, sample_rate)

    def cell(key: str, style: str) -> str:
        value = numbers[key]
        return f"{'-' if value is None else style.format(value):>9}"

    lines = [f"{len(pcm):,} frames at {sample_rate:,} Hz", f"{numbers['seconds']:.3f} s", ""]
    lines.append(f"{'':12}" + "".join(f"{name:>9}" for name in names))
    for row, key, style, unit in _PER_CHANNEL:
        lines.append(f"{row:12}" + "".join(cell(f"{key}/{name}", style) for name in names) + f" {unit}")
    if len(names) == 2:
        lines.append("")
        lines += [f"{row:12}{cell(key, style)} {unit}" for row, key, style, unit in _STEREO]
    return "\n".join(line.rstrip() for line in lines)


def save_png(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write the figure as a `.png` file; it appears under its name only when it is complete.

    Raises ValueError for another suffix, OSError if the file cannot be written; no partial file is left behind.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"{path}: pictures are written as .png; got suffix {path.suffix!r}.")
    temporary = path.parent / f".{secrets.token_hex(8)}.part"
    try:
        figure.savefig(temporary, format="png")
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
