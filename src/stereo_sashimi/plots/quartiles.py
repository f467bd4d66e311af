"""Two sides of a comparison as ranges: the middle half of the values of each metric, and their median."""

import math
from collections.abc import Mapping
from itertools import groupby
from typing import Any

from matplotlib.figure import Figure

# Lower one first. The blue of the waveforms, and a grey for what is compared with.
SIDE_COLOURS = {"reference": "#8a8a8a", "generated": "#2563a8"}
_WIDTH, _DPI, _ROW, _AXIS = 8.0, 110, 0.3, 0.62
# Axes that have ends are drawn whole; the others reach as far as their values.
_ENDS = {"1": (-1.0, 1.0), "rad": (-math.pi, math.pi), "share": (0.0, 1.0)}
_UNITS = {"1": "no unit", "rad": "radians", "share": "share of the samples"}


def quartile_ranges(metrics: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Draw what `metrics.distances.compare` gives as "metrics": a row each, rows of one unit on one axis.

    A line from the lower to the upper quartile and a dot at the median, of both sides; an angle's line may lead through
    pi. A side without a value is left out.
    """
    groups = [(unit, list(names)) for unit, names in groupby(metrics, lambda name: str(metrics[name]["unit"]))]
    heights = [_ROW * len(names) + _AXIS for _, names in groups]
    figure = Figure(figsize=(_WIDTH, sum(heights) + 0.4), dpi=_DPI, layout="constrained")
    panels = figure.subplots(len(groups), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    for (unit, names), axes in zip(groups, panels, strict=True):
        for row, name in enumerate(names):
            for shift, (side, colour) in zip((0.17, -0.17), SIDE_COLOURS.items(), strict=True):
                if (summary := metrics[name][side])["windows"]:
                    low, high = summary["quartiles"]
                    parts = [(low, high)] if low <= high else [(low, math.pi), (-math.pi, high)]
                    axes.hlines([row + shift] * len(parts), *zip(*parts, strict=True), color=colour, linewidth=3)
                    axes.plot(summary["median"], row + shift, "o", color=colour, markersize=5)
        axes.set_yticks(range(len(names)), names, fontsize="small")
        axes.set_ylim(len(names) - 0.5, -0.5)
        if unit in _ENDS:
            low, high = _ENDS[unit]
            axes.set_xlim(low - 0.02 * (high - low), high + 0.02 * (high - low))
        axes.set_xlabel(_UNITS.get(unit, unit), fontsize="small")
        axes.tick_params(axis="x", labelsize="small")
        axes.grid(axis="x", color="#e4e4e4", linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    handles = [panels[0].plot([], [], "o-", color=c, linewidth=3, label=side)[0] for side, c in SIDE_COLOURS.items()]
    figure.legend(handles=handles, loc="outside upper left", ncols=2, frameon=False)
    return figure
