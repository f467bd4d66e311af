"""Codes of PCM: hand-made values, normalisation, errors. All 65,536 values are in property/test_pcm_identity.py."""

import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stereo_sashimi.audio.quantize import decode, encode, minmax_encode_linear, minmax_encode_mulaw, normalize_peak
from stereo_sashimi.spec import AudioSpec

CLIPS = arrays(np.int16, st.tuples(st.integers(1, 40), st.just(2)), elements=st.integers(-32768, 32767))


def column(*values):
    return np.array(values, dtype=np.int16)[:, None]


def spec(bits=16, quantization="linear", normalize="none", n_channels=1):
    return AudioSpec(44100, n_channels, bits, quantization, normalize)


def test_8_bit_linear_is_the_top_byte():
    codes = encode(column(-32768, -32513, -1, 0, 255, 256, 32767), spec(8))
    assert codes[:, 0].tolist() == [0, 0, 127, 128, 128, 129, 255]
    assert decode(codes, spec(8))[:, 0].tolist() == [-32768, -32768, -256, 0, 0, 256, 32512]


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("quantization", ["linear", "mu-law"])
@pytest.mark.parametrize("normalize", ["none", "peak"])
def test_silence_is_the_start_code(bits, quantization, normalize):
    silence, format_ = np.zeros((5, 2), np.int16), spec(bits, quantization, normalize, n_channels=2)
    codes = encode(silence, format_)
    assert (codes == format_.start_code).all()
    assert (decode(codes, format_) == 0).all()


@pytest.mark.parametrize("bits", [8, 16])
def test_mulaw_codes_are_ordered_and_fine_around_silence(bits):
    pcm = np.arange(-32768, 32768).astype(np.int16)[:, None]
    codes = encode(pcm, spec(bits, "mu-law"))[:, 0]
    assert (np.diff(codes) >= 0).all()
    assert codes[0] == 0
    assert codes[-1] == 2**bits - 1
    # Half full scale takes up most of the codes: the curve is logarithmic.
    assert codes[32768 + 16384] > 0.92 * 2**bits


def test_mulaw_8_bit_error_grows_with_the_level():
    pcm = np.arange(-32768, 32768).astype(np.int16)[:, None]
    back = decode(encode(pcm, spec(8, "mu-law")), spec(8, "mu-law"))
    error = np.abs(back.astype(int) - pcm)
    assert error.max() < 1500
    assert error[32768 - 50 : 32768 + 50].max() <= 8


@given(CLIPS)
@settings(deadline=None, max_examples=40)
def test_peak_scales_to_full_scale_without_overflow(pcm):
    scaled = normalize_peak(pcm).astype(int)
    if not pcm.any():
        assert not scaled.any()
        return
    assert np.abs(scaled).max() in (32767, 32768)
    assert np.array_equal(np.sign(scaled), np.sign(pcm))
    largest = np.abs(pcm.astype(int)).max()
    assert np.abs(scaled - pcm * (32768 / largest)).max() <= 1


def test_peak_is_joint_over_channels():
    codes = encode(np.array([[16384, 100]], np.int16), spec(16, normalize="peak", n_channels=2))
    assert codes.tolist() == [[65535, 32768 + 200]]


@given(CLIPS)
@settings(deadline=None, max_examples=40)
def test_minmax_is_joint_over_channels_and_frames(pcm):
    format_ = spec(16, normalize="minmax", n_channels=2)
    flat = spec(16, normalize="minmax")
    assert np.array_equal(encode(pcm, format_).ravel(), encode(pcm.reshape(-1, 1), flat)[:, 0])


@pytest.mark.parametrize("encoder", [minmax_encode_linear, minmax_encode_mulaw])
def test_minmax_ignores_offset_and_gain(encoder):
    noise = np.random.default_rng(0).uniform(-1, 1, 500).astype(np.float32)
    difference = encoder(noise, 8) - encoder((noise * 0.25 + 0.5).astype(np.float32), 8)
    assert np.abs(difference).max() <= 1
    assert (difference != 0).mean() < 0.02


def test_minmax_of_silence_is_code_0_as_in_the_reference():
    assert (encode(np.zeros((3, 1), np.int16), spec(16, normalize="minmax")) == 0).all()


def test_an_empty_clip_has_no_codes():
    assert encode(np.zeros((0, 2), np.int16), spec(n_channels=2, normalize="minmax")).shape == (0, 2)


def test_other_arrays_are_refused():
    with pytest.raises(ValueError, match="int16 PCM; got float32"):
        inspect.unwrap(encode)(np.zeros((4, 1), np.float32), spec())
    with pytest.raises(ValueError, match="n_channels=2"):
        encode(np.zeros((4, 1), np.int16), spec(n_channels=2))
    for code in (-1, 256):
        with pytest.raises(ValueError, match="8 bits are 0 to 255"):
            decode(np.array([[code]]), spec(8))
    with pytest.raises(ValueError, match="integer codes"):
        decode(np.zeros((1, 1)), spec(8))
