"""The learning curve: bits/sample of training and validation over the steps of a run."""

from collections.abc import Sequence

from matplotlib.figure import Figure

_SIZE, _DPI = (8.0, 3.2), 110
_COLOURS = {"training": "#8a8a8a", "validation": "#2563a8"}


def learning_curve(training: Sequence[tuple[float, float]], validation: Sequence[tuple[float, float]]) -> Figure | None:
    """Draw (step, bits/sample) of both; None where there is no point."""
    if not training and not validation:
        return None
    figure = Figure(figsize=_SIZE, dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    for (name, colour), points in zip(_COLOURS.items(), (training, validation), strict=True):
        if points:
            axes.plot(*zip(*points, strict=True), "o-", label=name, color=colour, linewidth=1.4, markersize=3)
    axes.set(xlabel="step", ylabel="bits/sample")
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure
