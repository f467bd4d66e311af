"""The bits curve shows bits/sample of each second, also of a last one that is shorter, and what stands beside it."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg

from stereo_sashimi.plots.bits_curve import bits_curve

RATE = 8000
BITS = np.array([[8.0, 4.0], [16.0, 2.0], [3.0, 1.0]]) * [[RATE], [RATE], [RATE / 2]]
FRAMES = 5 * RATE // 2


@given(st.integers(1, 50_000), st.integers(1, 9000), st.integers(1, 2))
@settings(deadline=None)
def test_a_constant_rate_is_a_constant_line(frames, rate, channels):
    seconds = -(-frames // rate)
    bits = np.array([[3.5 * min(rate, frames - second * rate)] * channels for second in range(seconds)])
    (axes,) = bits_curve(bits, frames, rate, "LR"[:channels]).axes
    for patch in axes.patches:
        np.testing.assert_allclose(patch.get_data().values, 3.5)


def test_steps_and_names():
    (axes,) = bits_curve(BITS, FRAMES, RATE, ("left", "right | left")).axes
    left, right = (patch.get_data() for patch in axes.patches)
    np.testing.assert_allclose(left.values, [8, 16, 3])
    np.testing.assert_allclose(right.values, [4, 2, 1])
    np.testing.assert_allclose(left.edges, [0, 1, 2, 2.5])
    assert axes.get_xlim() == (0, 2.5)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("time (s)", "bits/sample")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["left", "right | left"]


def test_what_to_compare_with_and_the_excerpt():
    (axes,) = bits_curve(BITS, FRAMES, RATE, "LR", average=("flac -8", 40.0), excerpt=(0.5, 1.5)).axes
    (line,), (bottom, top) = axes.lines, axes.get_ylim()
    assert set(line.get_ydata()) == {40.0}
    assert bottom == 0 < 40 < top
    shaded = axes.patches[-1].get_window_extent().transformed(axes.transData.inverted())
    assert (shaded.x0, shaded.x1) == pytest.approx((0.5, 1.5))
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert texts == ["L", "R", "flac -8, average", "excerpt below"]


@pytest.mark.parametrize("bits", [BITS, np.zeros((3, 1))], ids=["stereo", "silent mono"])
def test_everything_is_on_the_page(bits):
    names = ["$x$", "right"][: bits.shape[1]]
    figure = bits_curve(bits, FRAMES, RATE, names, average=("flac -8, no mid/side", 8.0), excerpt=(0.0, 1.0))
    FigureCanvasAgg(figure).draw()
    box = figure.get_tightbbox().transformed(figure.dpi_scale_trans)
    page = figure.bbox
    assert page.x0 <= box.x0 < box.x1 <= page.x1
    assert page.y0 <= box.y0 < box.y1 <= page.y1
    assert plt.get_fignums() == []
