"""Distances between distributions: zero for the same, known shifts, the circle against brute force, JSON, errors."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from stereo_sashimi.audio.io import write_pcm
from stereo_sashimi.metrics import distances
from stereo_sashimi.metrics.distances import circular_wasserstein, compare, kolmogorov_smirnov, kuiper
from stereo_sashimi.metrics.stereo_windows import TIMBRE_UNITS

RATE = 8000
ANGLES = arrays(np.float64, st.integers(1, 12), elements=st.floats(-math.pi, math.pi))


def clip(seed: int, seconds: float = 3.0, right: float = 0.5, n_channels: int = 2) -> np.ndarray:
    rng = np.random.default_rng(seed)
    shared, own = rng.normal(0, 3000, (2, round(seconds * RATE)))
    return np.rint(np.stack([shared, right * (shared + own)], axis=1)[:, :n_channels]).astype(np.int16)


@pytest.fixture
def write(tmp_path):
    def _write(name: str, pcm: np.ndarray, rate: int = RATE):
        write_pcm(tmp_path / name, pcm, rate)
        return tmp_path / name

    return _write


def test_a_set_has_distance_zero_to_itself(write):
    files = [write(f"{seed}.wav", clip(seed)) for seed in range(3)]
    result = compare(files, files)
    assert result["generated"] == result["reference"] == {"files": 3, "windows": 9}
    assert (result["sample_rate"], result["n_channels"], result["window_seconds"]) == (RATE, 2, 1.0)
    for name, metric in result["metrics"].items():
        assert metric["distance"] == metric["ks"] == 0, name
        assert metric["generated"] == metric["reference"]
        assert metric["floor"] >= 0
    assert result["metrics"]["correlation/125-500"]["floor"] > 0


def test_a_gain_in_one_channel_is_the_distance_of_the_level_difference(write):
    loud = 2 * clip(0)
    metrics = compare([write("loud.wav", loud)], [write("quiet.wav", loud // np.array([1, 2], np.int16))])["metrics"]
    difference = metrics["level_difference_db"]
    loud_median, median = (difference[side]["median"] for side in ("generated", "reference"))
    lower, upper = difference["reference"]["quartiles"]
    assert (difference["ks"], difference["unit"]) == (1, "dB")
    assert (difference["distance"], median - loud_median) == pytest.approx((6.0206, 6.0206), abs=1e-3)
    assert lower <= median <= upper
    # A gain changes no correlation, in no band.
    assert metrics["correlation/125-500"]["distance"] == pytest.approx(0, abs=1e-6)


def test_inverted_channels_are_half_a_turn_apart_and_rounding_is_no_distance(write):
    left = clip(0)[:, 0]
    equal, inverted = write("equal.wav", np.stack([left, left], 1)), write("inverted.wav", np.stack([left, -left], 1))
    metrics = compare([equal], [inverted])["metrics"]
    assert metrics["phase_difference/500-2000"]["distance"] == pytest.approx(math.pi)
    assert metrics["correlation/500-2000"]["distance"] == pytest.approx(2)
    other = write("other.wav", np.stack([-clip(5)[:, 0], clip(5)[:, 0]], 1))
    for name in ("phase_difference/500-2000", "correlation/500-2000", "coherence/500-2000"):
        metric = compare([other], [inverted])["metrics"][name]
        assert (metric["distance"], metric["ks"]) == (pytest.approx(0, abs=1e-8), 0), name


def test_the_floor_compares_alternate_files_or_windows(write):
    loud, quiet = clip(0), clip(0, right=0.25)
    files = [write("0.wav", loud), write("1.wav", quiet)]
    floor = compare(files, files)["metrics"]["level_difference_db"]["floor"]
    assert floor == pytest.approx(6.02, abs=0.01)
    joined = write("joined.wav", np.concatenate([loud[:RATE], quiet[:RATE], loud[RATE : 2 * RATE]]))
    assert compare([joined], [joined])["metrics"]["level_difference_db"]["floor"] == pytest.approx(6.02, abs=0.2)
    single = write("single.wav", loud[:RATE])
    assert compare([single], [single])["metrics"]["level_difference_db"]["floor"] is None


def test_what_is_not_defined_is_null_or_absent_and_json_can_hold_it(write):
    silent, loud = write("silent.wav", np.zeros((2 * RATE, 2), np.int16)), write("loud.wav", clip(0))
    result = compare([silent], [loud])
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    metrics = result["metrics"]
    for name in ("loudness_lufs", "side_mid_db", "phase_difference/125-500"):
        assert metrics[name]["distance"] is metrics[name]["ks"] is None
        assert metrics[name]["generated"] == {"median": None, "quartiles": None, "windows": 0}
        assert metrics[name]["reference"]["windows"] == 3
    assert metrics["silent_share"]["distance"] == pytest.approx(1, abs=1e-3)
    mono = [write("a.wav", clip(0, n_channels=1))], [write("b.flac", clip(0, n_channels=1) // 2)]
    metrics = compare(*mono)["metrics"]
    assert set(metrics) == {"loudness_lufs", "silent_share", "clipped_share", *TIMBRE_UNITS}
    assert metrics["loudness_lufs"]["distance"] == pytest.approx(6.02, abs=0.01)


def test_files_in_pieces_have_the_numbers_of_whole_files(write, monkeypatch):
    files = [write("a.wav", clip(0, 4.7)), write("b.wav", clip(1, 3.3))]
    whole = compare(files, files[::-1])
    monkeypatch.setattr(distances, "_WINDOWS", 2)
    assert compare(files, files[::-1]) == whole
    assert whole["generated"]["windows"] == 5 + 3


@pytest.mark.parametrize(("n", "m"), [(2, 2), (3, 40), (200, 150)])
def test_kolmogorov_smirnov_is_that_of_scipy(n, m):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=n).round(1), rng.normal(0.3, 1, m).round(1)
    assert kolmogorov_smirnov(a, b) == pytest.approx(stats.ks_2samp(a, b, method="asymp").statistic, abs=1e-12)
    assert kolmogorov_smirnov(a, a[::-1]) == 0
    assert kolmogorov_smirnov(a[:1], a[:1] + 1) == 1


def test_angles_near_the_cut_are_near_each_other():
    a, b = np.array([math.pi - 0.01, math.pi - 0.02]), np.array([-math.pi + 0.01, -math.pi + 0.02])
    assert circular_wasserstein(a, b) == pytest.approx(0.03, abs=1e-7)
    assert circular_wasserstein(np.array([math.pi]), np.array([-math.pi])) == 0
    assert kuiper(np.array([math.pi]), np.array([-math.pi])) == 0
    summary = distances._summary(np.concatenate([a, b]), circular=True)
    assert abs(summary["median"]) == pytest.approx(math.pi)
    assert summary["quartiles"] == [pytest.approx(math.pi - 0.0125), pytest.approx(-math.pi + 0.0125)]


@given(st.integers(1, 7).flatmap(lambda n: st.tuples(*[arrays(np.float64, n, elements=st.floats(-3.1, 3.1))] * 2)))
@settings(deadline=None)
def test_the_circle_agrees_with_the_best_of_all_cyclic_pairings(pair):
    """For equally many points the best assignment keeps their order around the circle, up to a turn."""
    a, b = (np.sort(side) for side in pair)
    away = [np.abs((a - np.roll(b, k) + math.pi) % (2 * math.pi) - math.pi).mean() for k in range(len(a))]
    assert circular_wasserstein(a, b) == pytest.approx(min(away), abs=1e-7)


@given(ANGLES, ANGLES, st.floats(-3, 3))
@settings(deadline=None)
def test_the_cut_does_not_matter(a, b, turn):
    assert circular_wasserstein(a, a) == 0
    # A turn moves every value by its angle at most.
    assert circular_wasserstein(a, a + 0.1) <= 0.1 + 1e-7
    assert circular_wasserstein(a + turn, b + turn) == pytest.approx(circular_wasserstein(a, b), abs=1e-6)
    assert circular_wasserstein(b, a) == pytest.approx(circular_wasserstein(a, b), abs=1e-9)
    assert 0 <= circular_wasserstein(a, b) <= math.pi + 1e-7
    assert 0 <= kuiper(a, b) <= 1


def test_files_that_do_not_fit_are_named(write, tmp_path):
    stereo, mono = write("stereo.wav", clip(0)), write("mono.wav", clip(0, n_channels=1))
    (tmp_path / "text.wav").write_text("not audio")
    for generated, reference, message in (
        ([], [stereo], r"no generated files .*\n  Name a folder"),
        ([stereo], [], "no reference files"),
        ([stereo], [stereo, mono], r"stereo\.wav has 2 channels, .*mono\.wav has 1; .*\n  Compare stereo"),
        (
            [stereo],
            [write("fast.wav", clip(0), 16000)],
            r"o\.wav has 8000 Hz, .*t\.wav has 16000 Hz; .*\n  Resample",
        ),
        ([stereo], [write("empty.wav", clip(0)[:0])], r"empty\.wav: the file has 0 frames"),
        ([write("wide.wav", np.tile(clip(0), 2))], [stereo], r"wide\.wav: 4 channels; 1 or 2"),
        ([stereo], [tmp_path / "text.wav"], r"text\.wav"),
        ([tmp_path / "missing.wav"], [stereo], r"missing\.wav: there is no such file"),
    ):
        with pytest.raises(ValueError, match=message):
            compare(generated, reference)
