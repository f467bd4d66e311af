"""The bits curve: what a model spends on each second of a track, one line a channel; the audio itself: `sheet.py`."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

# As wide as the sheet, so that letters are of one size where the two stand below each other.
_SIZE, _DPI = (13.0, 2.7), 110
# The blue of the waveforms, and an orange that stays apart from it where the lines cross, for any eyes.
_COLOURS = ("#2563a8", "#d9730d")
_AVERAGE_COLOUR = "#404040"
_EXCERPT_COLOUR = "#8a8a8a"


def bits_curve(
    bits: Float[np.ndarray, "seconds channels"],
    frames: int,
    sample_rate: int,
    names: Sequence[str],
    *,
    average: tuple[str, float] | None = None,
    excerpt: tuple[float, float] | None = None,
) -> Figure:
    """Draw bits/sample over time: a step of 1 s for each row, the last one as long as what is left of the track.

    Args:
        bits: Total bits of each second and channel, ceil(frames / sample_rate) rows.
        frames, sample_rate: Of the track.
        names: One a channel.
        average: Name and bits/sample of something to compare with, drawn as a horizontal line.
        excerpt: From and to in seconds, a stretch that is shaded.
    """
    lengths = np.full((len(bits), 1), sample_rate, dtype=np.float64)
    lengths[-1] = frames - (len(bits) - 1) * sample_rate
    per_sample = np.asarray(bits, dtype=np.float64) / lengths
    figure = Figure(figsize=_SIZE, dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    edges = np.append(np.arange(len(per_sample)), frames / sample_rate)
    # Many short steps are one grey band if their lines are thick.
    width = 1.6 if len(per_sample) <= 120 else 0.9
    for c, (name, channel) in enumerate(zip(names, per_sample.T, strict=True)):
        axes.stairs(channel, edges, baseline=None, label=name, color=_COLOURS[c % len(_COLOURS)], linewidth=width)
    if average is not None:
        axes.axhline(average[1], label=f"{average[0]}, average", color=_AVERAGE_COLOUR, linewidth=1.2, linestyle="--")
    if excerpt is not None:
        axes.axvspan(*excerpt, label="excerpt below", color=_EXCERPT_COLOUR, alpha=0.18, linewidth=0)
    # Both axes from 0: the height of a line is then its share of the bits, and silence is seen as such.
    highest = float(max(per_sample.max(), average[1] if average else 0))
    axes.set(xlim=(0, edges[-1]), ylim=(0, highest * 1.1 or 1), xlabel="time (s)", ylabel="bits/sample")
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    # Above the axes it hides no line, and is seen where only the left half of the picture is. "$" stands for itself.
    legend = axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, ncols=4, frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure
