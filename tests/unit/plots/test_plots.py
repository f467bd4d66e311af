"""The pictures show what is in the audio: envelopes, levels, stereo image, a page without overlaps, atomic files."""

import errno
import itertools
import os
from unittest.mock import Mock

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from stereo_sashimi.audio.io import AudioError
from stereo_sashimi.metrics.stereo import describe
from stereo_sashimi.plots.panels import (
    CLIP_COLOUR,
    COLUMNS,
    FLOOR_DBFS,
    density,
    envelope,
    goniometer,
    spectrogram,
    spectrum_levels,
    waveform,
)
from stereo_sashimi.plots.sheet import numbers_table, save_png, sheet

RATE = 16000
VALUES = st.one_of(st.sampled_from([-32768, 0, 32767]), st.integers(-32768, 32767))
CHANNEL = arrays(np.int16, st.integers(1, 300), elements=VALUES)
STEREO = arrays(np.int16, st.tuples(st.integers(1, 200), st.just(2)), elements=VALUES)


def panels(n: int) -> list:
    figure = Figure()
    return [figure.add_subplot(n, 1, i + 1) for i in range(n)]


def sine(frequency: float, frames: int, amplitude: float = 32767) -> np.ndarray:
    return np.rint(amplitude * np.sin(2 * np.pi * frequency * np.arange(frames) / RATE)).astype(np.int16)


def noise(frames: int, channels: int, amplitude: int = 9000) -> np.ndarray:
    return np.random.default_rng(0).integers(-amplitude, amplitude, (frames, channels)).astype(np.int16)


def clips(channels: int) -> dict[str, np.ndarray]:
    return {
        "music-like": noise(30_000, channels),
        "silence": np.zeros((5000, channels), np.int16),
        "quiet": noise(5000, channels, amplitude=3),
        "clipped": np.where(noise(5000, channels) < 0, -32768, 32767).astype(np.int16),
        "10 frames": noise(10, channels),
        "1 frame": np.full((1, channels), 5, np.int16),
    }


# Mono and stereo in turns.
CASES = [pytest.param(clips(1 + i % 2)[name], id=name) for i, name in enumerate(clips(1))]


@given(CHANNEL, st.integers(1, 40))
@settings(deadline=None, max_examples=50)
def test_the_envelope_keeps_every_extreme(channel, columns):
    frames, values = envelope(channel, columns)
    assert len(frames) == len(values) <= max(2 * columns, 1)
    assert (values.min() * 32768, values.max() * 32768) == (channel.min(), channel.max())
    assert (np.diff(frames) >= 0).all()
    assert 0 <= frames[0] <= frames[-1] < len(channel)


def test_one_sample_of_a_long_file_is_seen_at_its_place():
    pcm = np.zeros((200_000, 1), np.int16)
    pcm[150_000] = -20_000
    (panel,) = panels(1)
    waveform(pcm, RATE, [panel])
    times, values = panel.lines[0].get_data()
    assert values.min() == -20_000 / 32768
    assert times[values.argmin()] == pytest.approx(150_000 / RATE, abs=200_000 / COLUMNS / RATE)
    assert len(values) <= 2 * COLUMNS
    assert panel.get_xlim() == (0, 12.5)


def test_clipped_samples_are_marked_where_they_are():
    pcm = np.zeros((40_000, 2), np.int16)
    pcm[10_000, 0], pcm[30_000:30_003, 0] = 32767, -32768
    pcm[20_000, 1] = 32766
    left, right = panels(2)
    waveform(pcm, RATE, [left, right])
    marks = [line for line in left.lines if line.get_color() == CLIP_COLOUR and len(line.get_xdata())]
    # In the order lower edge, upper edge.
    assert [set(mark.get_ydata()) for mark in marks] == [{-1.0}, {1.0}]
    assert marks[0].get_xdata()[0] == pytest.approx(30_000 / RATE, abs=0.01)
    assert marks[1].get_xdata()[0] == pytest.approx(10_000 / RATE, abs=0.01)
    assert [text.get_text() for text in left.texts] == ["4 clipped"]
    assert not right.texts


@pytest.mark.parametrize(("frequency", "amplitude", "level"), [(1000, 32767, 0.0), (5000, 3277, -20.0)])
def test_a_sine_has_its_frequency_and_level(frequency, amplitude, level):
    levels, _, _ = spectrum_levels(sine(frequency, RATE, amplitude), RATE, COLUMNS)
    middle = levels[:, levels.shape[1] // 2]
    bin_hz = RATE / 2 / (len(levels) - 1)
    assert middle.argmax() * bin_hz == pytest.approx(frequency, abs=bin_hz / 2)
    # A Hann window loses at most 1.42 dB between two bins.
    assert level - 1.5 < middle.max() < level + 0.01


def test_a_late_burst_is_late_and_columns_are_bounded():
    channel = np.zeros(200_000, np.int16)
    channel[150_000:160_000] = sine(2000, 10_000)
    columns = 50
    levels, frames_per_column, _ = spectrum_levels(channel, RATE, columns)
    assert levels.shape[1] <= columns
    loud = np.flatnonzero(levels.max(axis=0) > -20)
    assert abs(loud[0] * frames_per_column - 150_000) <= 2 * frames_per_column
    assert abs(loud[-1] * frames_per_column - 160_000) <= 2 * frames_per_column
    assert loud.size >= 2


def test_blocks_do_not_show(monkeypatch):
    channel = noise(30_000, 1)[:, 0]
    whole, _, _ = spectrum_levels(channel, RATE, 40)
    monkeypatch.setattr("stereo_sashimi.plots.panels._BLOCK_SLICES", 7)
    parts, _, _ = spectrum_levels(channel, RATE, 40)
    np.testing.assert_allclose(parts, whole, atol=1e-9)


@given(CHANNEL, st.sampled_from([8000, 44100, 192000]), st.integers(1, 50))
@settings(deadline=None, max_examples=60)
def test_levels_are_finite_and_bounded_for_any_clip(channel, rate, columns):
    levels, frames_per_column, _ = spectrum_levels(channel, rate, columns)
    assert levels.shape[1] <= columns
    assert (levels.shape[1] - 1) * frames_per_column < len(channel)
    assert (levels >= FLOOR_DBFS).all()
    # No amplitude exceeds the sum of the window, which is 1, counted for both signs of the frequency.
    assert (levels <= 6.1).all()
    assert (levels == FLOOR_DBFS).all() or channel.any()


def test_each_channel_has_its_own_waveform_and_its_own_spectrum_on_one_scale():
    left, right, *both = panels(4)
    images = spectrogram(np.stack([sine(1000, 8000), np.zeros(8000, np.int16)], axis=1), RATE, [left, right])
    assert images[0].get_array().max() > -2
    assert (images[1].get_array() == FLOOR_DBFS).all()
    assert images[0].get_clim() == images[1].get_clim() == (FLOOR_DBFS, 0.0)
    assert left.get_ylim() == (0, 8)
    assert left.get_xlim() == right.get_xlim() == (0, 0.5)
    waveform(np.full((50, 2), [8192, -16384], np.int16), RATE, both)
    assert [(set(panel.lines[0].get_ydata()), panel.get_ylabel()) for panel in both] == [
        ({0.25}, "left"),
        ({-0.5}, "right"),
    ]
    assert both[1].get_xlabel() == "time (ms)"


@given(STEREO, st.integers(2, 80))
@settings(deadline=None, max_examples=50)
def test_every_frame_is_in_one_cell(pcm, radius):
    counts, cell = density(pcm, radius)
    assert counts.sum() == len(pcm)
    assert counts.shape[0] == counts.shape[1] <= 2 * radius + 1
    assert cell % 2 == 0


@pytest.mark.parametrize(
    ("left", "right", "line"),
    [(1, 1, "vertical"), (1, -1, "horizontal"), (1, 0, "left diagonal"), (0, 1, "right diagonal")],
)
def test_the_four_directions(left, right, line):
    for amplitude in (2, 300, 32767):
        wave = sine(100, 4000, amplitude)
        counts, _ = density(np.stack([left * wave, right * wave], axis=1).astype(np.int16), 80)
        mid, side = (index - len(counts) // 2 for index in np.nonzero(counts))
        assert np.ptp(mid) + np.ptp(side) > 0
        zero = {"vertical": side, "horizontal": mid, "left diagonal": mid + side, "right diagonal": mid - side}[line]
        # Cells are half open, so a diagonal may touch the neighbours.
        assert np.abs(zero).max() <= (1 if "diagonal" in line else 0)


def test_no_cell_is_favoured():
    # All pairs of a square, equally often: inside of it every cell must count the same.
    values = np.arange(-200, 200)
    pcm = np.stack(np.meshgrid(values, values), axis=-1).reshape(-1, 2).astype(np.int16)
    counts, cell = density(pcm, 60)
    middle = len(counts) // 2
    assert set(counts[middle - 10 : middle + 11, middle - 10 : middle + 11].flat) == {cell**2 // 2}


def test_left_is_drawn_towards_the_letter_l_and_mono_and_silence_are_said():
    axes, mono, silence = panels(3)
    goniometer(np.stack([np.full(100, 20_000), np.zeros(100)], axis=1).astype(np.int16), axes)
    image = axes.images[0]
    (row,), (column,) = np.nonzero(image.get_array().filled(0))
    letter = next(text for text in axes.texts if text.get_text() == "L")
    assert letter.get_position()[0] < 0 < letter.get_position()[1]
    assert column < len(image.get_array()) // 2 < row
    assert (image.origin, axes.get_aspect()) == ("lower", 1)
    goniometer(noise(9, 1), mono)
    goniometer(np.zeros((9, 2), np.int16), silence)
    assert [panel.texts[-1].get_text() for panel in (mono, silence)] == ["mono", "silence"]


def inked(figure: Figure) -> dict[str, Bbox]:
    """The box of every piece of text, and of every panel without its labels."""
    FigureCanvasAgg(figure).draw()
    renderer = figure.canvas.get_renderer()
    boxes = {f"panel {i}": axes.get_window_extent(renderer) for i, axes in enumerate(figure.axes)}
    texts = list(figure.texts)
    for axes in figure.axes:
        texts += [axes.title, axes._left_title, axes.xaxis.label, axes.yaxis.label]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
            texts += [label for tick in ticks for label in (tick.label1, tick.label2)] + [axis.get_offset_text()]
    shown = [t for t in texts if t.get_visible() and t.get_text().strip()]
    return boxes | {f"{i} {t.get_text()[:20]!r}": t.get_window_extent(renderer) for i, t in enumerate(shown)}


@pytest.mark.parametrize("pcm", CASES)
def test_nothing_overlaps_and_nothing_leaves_the_page(pcm):
    figure = sheet(pcm, 44100, "W" * 60)
    boxes = inked(figure)
    assert len(boxes) > 15
    for (a, first), (b, second) in itertools.combinations(boxes.items(), 2):
        common = Bbox.intersection(first.padded(-0.5), second.padded(-0.5))
        assert common is None or min(common.width, common.height) <= 0, f"{a} and {b} overlap"
    page = figure.bbox
    outside = [n for n, b in boxes.items() if b.x0 < page.x0 or b.x1 > page.x1 or b.y0 < page.y0 or b.y1 > page.y1]
    assert not outside


def test_the_end_of_a_prompt_is_marked_in_every_panel():
    plain, marked = (sheet(noise(8820, 2), 44100, "", prompt) for prompt in (0, 2205))
    for before, after in zip(plain.axes[:4], marked.axes[:4], strict=True):
        assert len(after.lines) == len(before.lines) + 2
        assert [set(line.get_xdata()) for line in after.lines[-2:]] == [{0.05}, {0.05}]
    assert [text.get_text() for text in marked.axes[0].texts] == ["prompt", "sampled"]
    boxes = [text.get_window_extent() for text in marked.axes[0].texts]
    place, _ = marked.axes[0].transData.transform((0.05, 0))
    assert boxes[0].x1 < place < boxes[1].x0


@pytest.mark.parametrize("channels", [1, 2])
def test_the_table_has_the_numbers_of_describe(channels):
    pcm = noise(4410, channels) + 100
    table, numbers = numbers_table(pcm, 44100), describe(pcm, 44100)
    rows = {line[:12].strip(): line[12:].split() for line in table.splitlines()}
    names = ("mono",) if channels == 1 else ("left", "right")
    assert rows["rms"] == [*(f"{numbers[f'rms_dbfs/{name}']:.2f}" for name in names), "dBFS"]
    assert rows["dc offset"] == [*(f"{numbers[f'dc_offset_lsb/{name}']:.1f}" for name in names), "LSB"]
    assert ("correlation" in rows) == (channels == 2)
    assert table in [text.get_text() for text in sheet(pcm, 44100, "").texts]
    # What is undefined is a dash, and zero has no sign.
    table = numbers_table(np.zeros((10, 2), np.int16), 44100)
    assert [line.split() for line in table.splitlines() if line.startswith("peak")] == [["peak", "-", "-", "dBFS"]]
    assert "-0.0" not in numbers_table(np.array([[32767]], np.int16), 44100)


def test_save_png_writes_a_whole_picture_or_none_with_a_title_that_is_cut_and_no_formula(tmp_path, monkeypatch):
    path, figure = tmp_path / "sheet.png", sheet(noise(100, 2), RATE, r"$\frac$" + "x" * 200)
    save_png(figure, path)
    (title,) = [text.get_text() for text in figure.texts if text.get_text().startswith(r"$\frac$")]
    assert title == r"$\frac$" + "x" * 90 + "..."
    assert plt.get_fignums() == []
    with pytest.raises(ValueError, match=r"written as \.png; got suffix '\.jpg'"):
        save_png(figure, tmp_path / "sheet.jpg")
    width, height = figure.get_size_inches() * figure.dpi
    assert plt.imread(path).shape[:2] == (round(height), round(width))
    old = path.read_bytes()
    monkeypatch.setattr(os, "replace", Mock(side_effect=OSError(errno.ENOSPC, "disk full")))
    with pytest.raises(AudioError, match=r"sheet\.png: cannot write the file \(disk full\)"):
        save_png(Figure(), path)
    assert [file.name for file in tmp_path.iterdir()] == ["sheet.png"]
    assert path.read_bytes() == old


def test_what_cannot_be_drawn_is_refused():
    for shape in ((0, 2), (4, 3)):
        with pytest.raises(ValueError, match=r"0 frames|1 or 2 channels"):
            sheet(np.zeros(shape, np.int16), RATE, "clip")
