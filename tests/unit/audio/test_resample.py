"""Sample rate conversion: lengths, tones, engines."""

import builtins

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stereo_sashimi.audio.resample import ResampleError, resample, resampled_length


def tone(frequency, rate, seconds=0.2):
    t = np.arange(int(rate * seconds)) / rate
    return np.stack([np.sin(2 * np.pi * frequency * t), np.cos(2 * np.pi * frequency * t)], axis=1).astype(np.float32)


@given(frames=st.integers(1, 300), rates=st.sampled_from([(44100, 16000), (16000, 44100), (48000, 44100), (3, 1)]))
@settings(deadline=None, max_examples=40)
def test_length_is_the_ceiling(frames, rates):
    y = resample(np.zeros((frames, 2), np.float32), *rates)
    assert y.shape == (-(-frames * rates[1] // rates[0]), 2)
    assert resampled_length(frames, *rates) == len(y)
    assert y.dtype == np.float32


@pytest.mark.parametrize(("source", "target"), [(44100, 16000), (16000, 44100), (48000, 44100)])
def test_a_tone_stays_the_same_tone(source, target):
    y = resample(tone(1000, source), source, target)
    expected = tone(1000, target)[: len(y)]
    # Away from the edges, where the silence around the clip rings.
    middle = slice(len(expected) // 4, -len(expected) // 4)
    assert np.abs(y[: len(expected)][middle] - expected[middle]).max() < 1e-3


def test_a_tone_above_the_new_range_is_removed():
    y = resample(tone(12000, 44100), 44100, 16000)
    assert np.abs(y[400:-400]).max() < 1e-3


def test_equal_rates_give_the_clip_itself():
    x = tone(500, 16000)
    assert resample(x, 16000, 16000) is x
    empty = np.zeros((0, 2), np.float32)
    assert resample(empty, 16000, 8000) is empty


def test_unknown_method_and_rate_are_refused():
    with pytest.raises(ResampleError, match="soxr, torchaudio; got 'sox'"):
        resample(tone(500, 16000), 16000, 8000, method="sox")
    with pytest.raises(ResampleError, match="at least 1 Hz"):
        resample(tone(500, 16000), 16000, 0)


def test_broken_torchaudio_is_an_error_and_no_fallback(monkeypatch):
    real = builtins.__import__

    def broken(name, *args, **kwargs):
        if name.startswith("torchaudio"):
            raise OSError("libc10_cuda.so: cannot open shared object file")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", broken)
    with pytest.raises(ResampleError, match="libc10_cuda") as caught:
        resample(tone(500, 16000), 16000, 8000, method="torchaudio")
    assert "dataset.resampler=soxr" in str(caught.value)


def torchaudio_imports():
    try:
        import torchaudio  # noqa: F401
    except (ImportError, OSError):
        return False
    return True


WITH_TORCHAUDIO = pytest.mark.skipif(not torchaudio_imports(), reason="torchaudio does not import here")
ENGINES = ["soxr", pytest.param("torchaudio", marks=WITH_TORCHAUDIO)]
RATES = [(44100, 16000), (16000, 44100), (48000, 44100), (44100, 8000)]


@WITH_TORCHAUDIO
def test_torchaudio_agrees_with_soxr():
    x = tone(1000, 44100)
    one, other = resample(x, 44100, 16000), resample(x, 44100, 16000, method="torchaudio")
    assert one.shape == other.shape
    assert np.abs(one - other)[400:-400].max() < 0.02


@pytest.mark.parametrize("method", ENGINES)
@pytest.mark.parametrize(("source", "target"), [*RATES, (192000, 8000), (44100, 22050)])
def test_a_constant_stays_constant_to_the_very_ends(source, target, method):
    for frames in (1, 2, 7, 5000):
        y = resample(np.full((frames, 2), 0.5, np.float32), source, target, method)
        assert len(y) == resampled_length(frames, source, target)
        # torchaudio's short filter has a gain of 1 within 0.001.
        assert np.abs(y - 0.5).max() < (1e-6 if method == "soxr" else 1e-3)
        assert not resample(np.zeros((frames, 2), np.float32), source, target, method).any()


@pytest.mark.parametrize("method", ENGINES)
@pytest.mark.parametrize(("source", "target"), RATES)
def test_a_tone_that_begins_and_ends_in_full_swing_does_not_click(source, target, method):
    for phase in (0.0, 0.7, np.pi / 2, 2.5):

        def at(rate, frames, phase=phase):
            return np.sin(2 * np.pi * 1000 * np.arange(frames)[:, None] / rate + phase).astype(np.float32)

        x = at(source, source // 10 + 7)
        y = resample(x, source, target, method)
        # The last frames lie behind the last sample of the input, where the tone was still going on.
        inside = (len(x) - 1) * target // source + 1
        error = np.abs(y - at(target, len(y)))[:inside]
        # Silence outside would miss by a third of the amplitude and ring on: 0.33, 0.9, 0.53, 0.41 for these rates.
        assert error.max() < 0.09
        assert np.abs(y).max() < 1.02
        assert error[50:-50].max() < 2e-3


@pytest.mark.parametrize("method", ENGINES)
def test_stereo_channels_are_converted_alike(method):
    rng = np.random.default_rng(0)
    left, right = rng.uniform(-1, 1, (2, 3000)).astype(np.float32)
    both = resample(np.stack([left, right], axis=1), 44100, 16000, method)
    alone = [resample(side[:, None], 44100, 16000, method)[:, 0] for side in (left, right)]
    np.testing.assert_allclose(both, np.stack(alone, axis=1), atol=1e-6)
    same = resample(np.stack([left, left], axis=1), 44100, 16000, method)
    np.testing.assert_array_equal(same[:, 0], same[:, 1])
