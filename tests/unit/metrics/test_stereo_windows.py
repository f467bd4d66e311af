"""Metrics per window: values known in closed form, where they are not defined, and how a clip is cut."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stereo_sashimi.metrics.stereo import describe
from stereo_sashimi.metrics.stereo_windows import LIMIT_DB, TIMBRE_UNITS, UNITS, bands, cuts, windows

RATE = 32000
NAMES = ("0-125", "125-500", "500-2000", "2000-8000", "8000-nyquist")
BANDED = ("correlation", "coherence", "phase_difference")


def noise(seed: int, seconds: float = 2.0, rms: float = 3000.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, rms, round(seconds * RATE))


def sine(frequency: float, amplitude: float = 16000.0, delay: float = 0.0, seconds: float = 1.0, rate: int = RATE):
    return amplitude * np.sin(2 * np.pi * frequency * (np.arange(round(seconds * rate)) / rate - delay))


def pcm(*channels: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(np.stack(channels, axis=1)), -32768, 32767).astype(np.int16)


def banded(values: dict[str, np.ndarray], metric: str) -> np.ndarray:
    return np.stack([values[f"{metric}/{name}"] for name in NAMES])


def test_names_and_shapes():
    values = windows(pcm(noise(0), noise(1)), RATE)
    assert {name.split("/")[0] for name in values} == UNITS.keys()
    assert set(values) == {*UNITS} - {*BANDED} | {f"{metric}/{name}" for metric in BANDED for name in NAMES}
    assert all(value.shape == (2,) and value.dtype == np.float64 for value in values.values())
    assert set(windows(pcm(noise(0)), RATE)) == {"loudness_lufs", "silent_share", "clipped_share", *TIMBRE_UNITS}


@pytest.mark.parametrize(
    ("sign", "correlation", "phase", "side", "mono"), [(1, 1, 0, -LIMIT_DB, 0), (-1, -1, math.pi, LIMIT_DB, -LIMIT_DB)]
)
def test_equal_and_inverted_channels(sign, correlation, phase, side, mono):
    wave = np.rint(noise(0))
    values = windows(pcm(wave, sign * wave), RATE)
    assert banded(values, "correlation") == pytest.approx(correlation, abs=1e-12)
    assert banded(values, "coherence") == pytest.approx(1, abs=1e-12)
    assert np.abs(banded(values, "phase_difference")) == pytest.approx(phase, abs=1e-12)
    assert values["side_mid_db"] == pytest.approx(side)
    assert values["mono_loss_db"] == pytest.approx(mono)
    assert values["level_difference_db"] == pytest.approx(0)


def test_timbre_of_tones_noise_and_decay():
    decay = np.exp(-6 * np.arange(RATE) / RATE)
    late = np.where(np.arange(RATE) < RATE // 2, 0.0, noise(1, 1))
    waves = {"tone": sine(1000), "noise": noise(0, 1), "decay": decay * noise(0, 1), "late": late}
    values = {
        name: {key: value[0] for key, value in windows(pcm(wave, 0.5 * wave), RATE).items()}
        for name, wave in waves.items()
    }
    assert values["tone"]["centroid_hz"] == pytest.approx(1000, abs=20)
    assert values["noise"]["centroid_hz"] == pytest.approx(RATE / 4, rel=0.02)
    assert values["tone"]["flatness"] < 0.01
    assert values["noise"]["flatness"] > 0.95
    assert values["tone"]["fall_db"] == pytest.approx(0, abs=0.01)
    # The energy falls by e^-12 a second, so by e^-6 from half to half.
    assert values["decay"]["fall_db"] == pytest.approx(10 * 6 / math.log(10), abs=0.5)
    assert values["late"]["fall_db"] < -40
    # Of the louder channel; both together have 5/8 of its mean square.
    assert values["tone"]["crest_db"] == pytest.approx(10 * math.log10(2 / 0.625), abs=0.01)


def test_independent_channels():
    values = windows(pcm(noise(0, 40), noise(1, 40)), RATE)
    mean = {name: value.mean() for name, value in values.items()}
    for name in NAMES[1:]:
        assert mean[f"correlation/{name}"] == pytest.approx(0, abs=0.05)
        # The bias of 31 Hann windows; neighbours overlap by half and correlate by 1/6, so 1 + 2 / 36 count as one.
        assert mean[f"coherence/{name}"] == pytest.approx((1 + 2 / 36) / 31, abs=2e-3)
    assert mean["side_mid_db"] == pytest.approx(0, abs=0.05)
    assert mean["mono_loss_db"] == pytest.approx(10 * math.log10(0.5), abs=0.05)


@pytest.mark.parametrize(("frequency", "band"), [(60, 0), (250, 1), (1000, 2), (3000, 3), (11000, 4)])
def test_a_delay_is_a_phase_in_its_band(frequency, band):
    delay = 0.2 / frequency
    values = windows(pcm(sine(frequency), sine(frequency, delay=delay)), RATE)
    assert values[f"phase_difference/{NAMES[band]}"] == pytest.approx(2 * np.pi * frequency * delay, abs=5e-3)
    assert values[f"correlation/{NAMES[band]}"] == pytest.approx(math.cos(2 * np.pi * frequency * delay), abs=5e-3)
    assert values[f"coherence/{NAMES[band]}"] == pytest.approx(1, abs=5e-3)
    swapped = windows(pcm(sine(frequency, delay=delay), sine(frequency)), RATE)
    assert swapped[f"phase_difference/{NAMES[band]}"] == pytest.approx(-0.4 * np.pi, abs=5e-3)


def test_bands_are_told_apart_and_half_the_amplitude_is_six_decibels():
    # Equal below, inverted above.
    low, high = sine(250), sine(3000)
    values = windows(pcm(low + high, low - high), RATE)
    assert values["correlation/125-500"] == pytest.approx(1, abs=1e-4)
    assert values["correlation/2000-8000"] == pytest.approx(-1, abs=1e-4)
    assert values["side_mid_db"] == pytest.approx(0, abs=1e-2)
    wave = 2 * np.rint(noise(0))
    values = windows(pcm(wave, wave / 2), RATE)
    assert values["level_difference_db"] == pytest.approx(6.0206, abs=1e-4)
    # Side is a quarter of the left channel, mid three quarters.
    assert values["side_mid_db"] == pytest.approx(20 * math.log10(1 / 3), abs=1e-4)
    assert values["mono_loss_db"] == pytest.approx(10 * math.log10(0.75**2 / (0.5 * 1.25)), abs=1e-4)


@pytest.mark.parametrize("rate", [16000, 44100, 48000])
def test_loudness_of_a_sine(rate):
    """ITU-R BS.1770: 0 dBFS at 997 Hz in one channel is -3.01 LUFS, in both 0; in pyloudnorm 0.1 lower."""
    wave, silence = sine(997, 32767, seconds=2, rate=rate), np.zeros(2 * rate)
    quiet = wave * 10 ** (-23 / 20)
    for channels, lufs in (((wave,), -3.01), ((wave, silence), -3.01), ((wave, wave), 0), ((quiet, quiet), -23)):
        assert windows(pcm(*channels), rate)["loudness_lufs"] == pytest.approx(lufs, abs=0.1)


def test_loudness_of_short_windows_and_low_rates():
    """A window of 0.46 s has one block of 0.4 s; a second one would reach past its end."""
    short, longer = (windows(pcm(sine(997, seconds=s)), RATE)["loudness_lufs"] for s in (0.4, 0.46))
    assert longer == pytest.approx(short, abs=1e-9)
    for seconds, rate in ((0.39, RATE), (1.0, 7999)):
        assert np.isnan(windows(pcm(sine(500, seconds=seconds, rate=rate)), rate)["loudness_lufs"]).all()


def test_shares_are_those_of_describe():
    clip = pcm(sine(100, 60000), np.where(np.arange(RATE) < RATE // 4, 1, noise(2, 1)))
    values, numbers = windows(clip, RATE), describe(clip, RATE)
    for share in ("silent_share", "clipped_share"):
        both = [numbers[f"{share}/{side}"] for side in ("left", "right")]
        assert values[share] == pytest.approx(sum(both) / 2)
        assert 0 < values[share][0] < 1


@pytest.mark.parametrize("level", [0, 1, 500])
def test_silence_and_constants_have_no_image(level):
    values = windows(np.full((RATE, 2), level, np.int16), RATE)
    undefined = {name for name, value in values.items() if np.isnan(value).all()}
    assert undefined == set(values) - {"silent_share", "clipped_share"} - ({"loudness_lufs"} if level == 500 else set())
    assert values["silent_share"] == (level <= 1)


def test_a_silent_channel_an_empty_band_and_a_single_spectrum():
    values = windows(pcm(noise(0, 1), np.full(RATE, 300)), RATE)
    assert values["level_difference_db"] == LIMIT_DB
    assert values["side_mid_db"] == pytest.approx(0)
    assert all(np.isnan(banded(values, metric)).all() for metric in BANDED)
    values = windows(pcm(sine(3000, 20), sine(3000, 20)), RATE)
    assert np.isnan(values["correlation/0-125"]).all()
    assert values["correlation/2000-8000"] == pytest.approx(1)
    values = windows(pcm(noise(0, 0.08), noise(1, 0.08)), RATE)
    assert np.isnan(banded(values, "coherence")).all()
    assert np.isfinite(banded(values, "correlation")).all()


@pytest.mark.parametrize(("frames", "rate"), [(1, 1), (1, 192000), (2, 100), (3, 16000), (50, 1), (50, 192000)])
def test_short_clips_and_odd_rates_are_measured_without_a_warning(frames, rate):
    values = windows(np.random.default_rng(0).integers(-32768, 32768, (frames, 2)).astype(np.int16), rate)
    assert not np.isinf(np.concatenate(list(values.values()))).any()


@given(st.integers(1, 300), st.integers(1, 50))
@settings(deadline=None)
def test_cuts_follow_each_other_and_leave_less_than_half_a_window(frames, length):
    found = cuts(frames, length)
    assert found[0][0] == 0
    assert all(a[1] == b[0] for a, b in itertools.pairwise(found))
    assert all(end - start == length for start, end in found[:-1])
    assert 0 <= 2 * (frames - found[-1][1]) < length
    for n, ends in ((3, [3]), (10, [10]), (14, [10]), (15, [10, 15]), (24, [10, 20])):
        assert cuts(n, 10) == list(zip([0, *ends[:-1]], ends, strict=True))


def test_a_window_is_measured_as_a_clip_of_its_own():
    clip = pcm(noise(0, 2.6), noise(1, 2.6))
    values = windows(clip, RATE)
    for i, (start, end) in enumerate(cuts(len(clip), RATE)):
        for name, value in windows(clip[start:end], RATE).items():
            assert values[name][i] == value[0]
    assert len(values["silent_share"]) == 3


def test_bands_end_at_the_nyquist_frequency():
    for rate, edges in ((44100, (0, 125, 500, 2000, 8000, math.inf)), (16000, (0, 125, 500, 2000, math.inf))):
        assert bands(rate) == dict(zip(NAMES, itertools.pairwise(edges), strict=False))
    assert bands(200) == {"0-125": (0, math.inf)}


def test_what_cannot_be_measured_is_refused():
    for shape, message in (((4, 3), r"1 or 2 channels; got int16 \(4, 3\)"), ((0, 2), "0 frames")):
        with pytest.raises(ValueError, match=message):
            windows(np.zeros(shape, np.int16), RATE)
