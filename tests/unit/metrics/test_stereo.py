"""Levels and stereo image: values known in closed form, invariances, and JSON."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stereo_sashimi.metrics.stereo import Levels, check_pcm, describe

VALUES = st.one_of(st.sampled_from([-32768, -1, 0, 1, 32767]), st.integers(-32768, 32767))
PCM = arrays(np.int16, st.tuples(st.integers(1, 40), st.integers(1, 2)), elements=VALUES)
STEREO = arrays(np.int16, st.tuples(st.integers(1, 40), st.just(2)), elements=VALUES)


def sine(amplitude: float, frames: int = 16000, periods: int = 100, phase: float = 0.0) -> np.ndarray:
    wave = np.sin(2 * np.pi * periods * np.arange(frames) / frames + phase)
    return np.clip(np.rint(amplitude * wave), -32768, 32767).astype(np.int16)


def test_known_levels():
    pcm = np.array([[0, 16384], [1, 16384], [-1, 16384], [32767, 16384], [-32768, -16384]], np.int16)
    numbers = describe(pcm, 10)
    half = 20 * math.log10(0.5)
    left = {"peak_dbfs": 0.0, "clipped_share": 0.4, "silent_share": 0.6, "dc_offset_lsb": -0.2}
    right = {"peak_dbfs": half, "rms_dbfs": half, "clipped_share": 0, "silent_share": 0, "dc_offset_lsb": 16384 * 3 / 5}
    assert numbers["seconds"] == 0.5
    for side, expected in (("left", left), ("right", right)):
        assert {name: numbers[f"{name}/{side}"] for name in expected} == pytest.approx(expected, abs=0)


def test_silence_is_none_where_nothing_is_defined():
    numbers = describe(np.zeros((100, 2), np.int16), 44100)
    undefined = {k for k, v in numbers.items() if v is None}
    levels = {f"{level}_dbfs/{side}" for level in ("peak", "rms") for side in ("left", "right")}
    assert check_pcm(np.zeros((1, 2), np.int16)) == ("left", "right")
    assert undefined == levels | {"correlation", "side_mid_db", "level_difference_db"}
    assert numbers["silent_share/left"] == 1.0


def test_mono_has_no_stereo_numbers():
    numbers = describe(sine(32768)[:, None], 16000)
    assert check_pcm(np.zeros((1, 1), np.int16)) == ("mono",)
    # A full-scale sine.
    assert numbers["rms_dbfs/mono"] == pytest.approx(-3.0103, abs=1e-3)
    assert not {"correlation", "side_mid_db", "level_difference_db"} & numbers.keys()


@pytest.mark.parametrize(("degrees", "correlation"), [(0, 1.0), (60, 0.5), (90, 0.0), (180, -1.0)])
def test_correlation_of_two_sines_is_the_cosine_of_their_phase(degrees, correlation):
    pcm = np.stack([sine(20000), sine(20000, phase=math.radians(degrees))], axis=1)
    assert describe(pcm, 16000)["correlation"] == pytest.approx(correlation, abs=1e-4)


def test_side_over_mid_which_is_none_without_either():
    numbers = describe(np.stack([sine(12000), sine(4000)], axis=1), 16000)
    # Side is a sine of 8000, mid one of 16000.
    assert numbers["side_mid_db"] == pytest.approx(20 * math.log10(0.5), abs=1e-2)
    assert numbers["level_difference_db"] == pytest.approx(20 * math.log10(3), abs=1e-2)
    assert numbers["correlation"] == pytest.approx(1.0, abs=1e-4)
    wave = sine(1000)
    for sign in (1, -1):
        assert describe(np.stack([wave, sign * wave], axis=1).astype(np.int16), 16000)["side_mid_db"] is None
    assert describe(np.stack([wave, np.full(16000, 7, np.int16)], axis=1), 16000)["correlation"] is None


def test_full_scale_does_not_overflow():
    numbers = describe(np.full((300_000, 2), -32768, np.int16), 44100)
    assert numbers["rms_dbfs/left"] == 0.0
    assert numbers["dc_offset_lsb/right"] == -32768.0
    assert numbers["side_mid_db"] is None


@given(PCM)
@settings(deadline=None, max_examples=80)
def test_every_number_is_a_float_that_json_can_hold(pcm):
    numbers = describe(pcm, 44100)
    assert all(value is None or type(value) is float for value in numbers.values())
    assert json.loads(json.dumps(numbers, allow_nan=False)) == numbers
    assert all(0 <= value <= 1 for key, value in numbers.items() if "_share/" in key and value is not None)
    assert -1 <= (numbers.get("correlation") or 0.0) <= 1


@given(STEREO)
@settings(deadline=None, max_examples=80)
def test_swapping_the_channels_swaps_the_numbers_and_correlation_is_that_of_numpy(pcm):
    numbers, swapped = describe(pcm, 44100), describe(np.ascontiguousarray(pcm[:, ::-1]), 44100)
    for key, value in numbers.items():
        mirror = key.replace("left", "L").replace("right", "left").replace("L", "right")
        assert swapped[mirror if "/" in key else key] == (
            pytest.approx(-value, abs=1e-12) if key == "level_difference_db" and value is not None else value
        )

    if (ours := numbers["correlation"]) is None:
        assert any(len(np.unique(channel)) == 1 for channel in pcm.T)
    else:
        assert ours == pytest.approx(np.corrcoef(pcm.T.astype(np.float64))[0, 1], abs=1e-6)


@given(PCM, st.sets(st.integers(1, 39)))
@settings(deadline=None, max_examples=80)
def test_blocks_have_the_numbers_of_the_whole(pcm, cuts):
    levels = Levels(44100)
    for block in np.split(pcm, sorted(cut for cut in cuts if cut < len(pcm))):
        levels.add(block)
    assert levels.numbers() == describe(pcm, 44100)


def test_levels_need_frames_of_the_same_channels():
    levels = Levels(44100)
    with pytest.raises(ValueError, match="0 frames"):
        levels.numbers()
    levels.add(np.zeros((3, 2), np.int16))
    with pytest.raises(ValueError, match=r"has 2 channels so far; got 1"):
        levels.add(np.zeros((3, 1), np.int16))


@pytest.mark.parametrize(
    ("pcm", "rate", "message"),
    [
        (np.zeros((4, 3), np.int16), 44100, r"1 or 2 channels; got int16 \(4, 3\)"),
        (np.zeros((0, 2), np.int16), 44100, "0 frames"),
        (np.zeros((4, 2), np.int16), 0, "sample_rate must be at least 1"),
    ],
)
def test_what_cannot_be_described_is_refused(pcm, rate, message):
    with pytest.raises(ValueError, match=message):
        describe(pcm, rate)
