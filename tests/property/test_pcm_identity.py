"""HOUSE law 5: 16-bit PCM goes through codes, and through files, without the change of one bit."""

import numpy as np
import pytest

from stereo_sashimi.audio import decode, encode
from stereo_sashimi.spec import AudioSpec

ALL_PCM = np.arange(-32768, 32768).astype(np.int16)


@pytest.mark.parametrize("channels", [1, 2])
def test_every_value_survives_16_bit_linear(channels):
    spec = AudioSpec(44100, channels, 16)
    # The two channels run in opposite directions, so a swap would show.
    pcm = np.stack([ALL_PCM, ALL_PCM[::-1]][:channels], axis=1)
    codes = encode(pcm, spec)
    assert codes[:, 0].tolist() == list(range(65536))
    back = decode(codes, spec)
    assert back.dtype == np.int16
    assert np.array_equal(back, pcm)


@pytest.mark.parametrize("quantization", ["linear", "mu-law"])
@pytest.mark.parametrize("channels", [1, 2])
def test_8_bit_codes_survive_decoding(quantization, channels):
    spec = AudioSpec(16000, channels, 8, quantization)
    codes = np.repeat(np.arange(256)[:, None], channels, axis=1)
    assert np.array_equal(encode(decode(codes, spec), spec), codes)


def test_16_bit_mulaw_is_idempotent_on_the_codes_that_pcm_has():
    spec = AudioSpec(16000, 1, 16, "mu-law")
    codes = encode(ALL_PCM[:, None], spec)
    assert 20_000 < len(np.unique(codes)) < 20_300
    assert np.array_equal(encode(decode(codes, spec), spec), codes)
