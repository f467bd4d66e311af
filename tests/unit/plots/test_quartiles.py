"""The ranges of two sides: a row for each metric on the axis of its unit, angles through pi, nothing for nothing."""

import math

import matplotlib.pyplot as plt
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from stereo_sashimi.plots.quartiles import SIDE_COLOURS, quartile_ranges


def summary(low: float, median: float, high: float) -> dict:
    return {"median": median, "quartiles": [low, high], "windows": 4}


def test_each_side_has_its_range_on_the_axis_of_its_unit():
    nothing = {"median": None, "quartiles": None, "windows": 0}
    figure = quartile_ranges(
        {
            "a_db": {"unit": "dB", "generated": summary(-3, -1, 2), "reference": summary(0, 1, 2)},
            "b_db": {"unit": "dB", "generated": nothing, "reference": summary(5, 6, 7)},
            "angle": {"unit": "rad", "generated": summary(3, 3.1, -3), "reference": summary(0, 0.5, 1)},
        }
    )
    FigureCanvasAgg(figure).draw()
    decibels, angles = figure.axes
    assert [label.get_text() for label in decibels.get_yticklabels()] == ["a_db", "b_db"]
    assert [axes.get_xlabel() for axes in figure.axes] == ["dB", "radians"]
    ranges = [[tuple(segment[:, 0]) for segment in lines.get_segments()] for lines in decibels.collections]
    assert ranges == [[(0, 2)], [(-3, 2)], [(5, 7)]]
    medians = [line.get_xdata()[0] for line in decibels.lines if len(line.get_xdata())]
    assert medians == [1, -1, 6]
    colours = [line.get_color() for line in decibels.lines if len(line.get_xdata())]
    assert colours == [*SIDE_COLOURS.values(), SIDE_COLOURS["reference"]]
    assert [tuple(segment[:, 0]) for segment in angles.collections[1].get_segments()] == [
        (3, pytest.approx(math.pi)),
        (pytest.approx(-math.pi), -3),
    ]
    page = figure.bbox
    box = figure.get_tightbbox().transformed(figure.dpi_scale_trans)
    assert page.x0 <= box.x0 < box.x1 <= page.x1
    assert plt.get_fignums() == []
