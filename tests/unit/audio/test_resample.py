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


def test_channels_do_not_mix():
    x = tone(500, 16000)
    x[:, 1] = 0
    assert not resample(x, 16000, 44100)[:, 1].any()


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


def test_torchaudio_agrees_with_soxr():
    try:
        import torchaudio  # noqa: F401
    except (ImportError, OSError) as error:
        pytest.skip(f"torchaudio does not import here: {error}")
    x = tone(1000, 44100)
    one, other = resample(x, 44100, 16000), resample(x, 44100, 16000, method="torchaudio")
    assert one.shape == other.shape
    assert np.abs(one - other)[400:-400].max() < 0.02
