"""The goniometer: side against mid as a density, the picture of a stereo image; its numbers: `metrics/stereo.py`."""

import math

import numpy as np
from jaxtyping import Int, Int16
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.ticker import MaxNLocator

from stereo_sashimi.metrics.stereo import FULL_SCALE, check_pcm

# Cells from the centre to the edge, at most: one cell is then about two pixels of the sheet.
RADIUS = 80
# Up to here (0.01 of full scale) the axes count LSB, in plain numbers.
_LSB_UP_TO = 328
_GUIDE_COLOUR = "#9a9a9a"


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
    colours = colormaps["viridis"].with_extremes(bad=(1, 1, 1, 0))
    for end in (-limit, limit):
        axes.plot([-limit, limit], [-end, end], color=_GUIDE_COLOUR, linewidth=0.6)
    axes.imshow(
        np.ma.masked_equal(counts, 0),
        extent=(-limit, limit, -limit, limit),
        origin="lower",
        cmap=colours,
        norm=LogNorm(1, max(10, int(counts.max()))),
        interpolation="nearest",
        zorder=2,
    )
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
