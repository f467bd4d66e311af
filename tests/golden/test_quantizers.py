"""The reference's quantizers against numbers from the reference itself (f_quantizers.safetensors)."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from stereo_sashimi.audio.quantize import (
    decode,
    encode,
    minmax_encode_linear,
    minmax_encode_mulaw,
    mulaw_expand,
    quantize01,
)
from stereo_sashimi.spec import AudioSpec

GOLDEN = load_file(Path(__file__).with_name("f_quantizers.safetensors"))
CLIPS = sorted(key.removeprefix("in.") for key in GOLDEN if key.startswith("in."))
BITS = (8, 16)


def test_all_clips_are_there():
    assert len(CLIPS) == 12


@pytest.mark.parametrize("bits", BITS)
def test_quantize01(bits):
    assert np.array_equal(quantize01(GOLDEN["quantize01_in"], bits), GOLDEN[f"quantize01.{bits}"])


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("bits", BITS)
def test_linear_encoder_is_equal(bits, clip):
    codes = minmax_encode_linear(GOLDEN[f"in.{clip}"], bits)
    assert np.array_equal(codes, GOLDEN[f"linear_enc.{bits}.{clip}"])


@pytest.mark.parametrize("bits", BITS)
def test_mulaw_encoder_is_equal_up_to_libm(bits):
    difference = np.concatenate(
        [minmax_encode_mulaw(GOLDEN[f"in.{clip}"], bits) - GOLDEN[f"mulaw_enc.{bits}.{clip}"] for clip in CLIPS]
    )
    assert np.abs(difference).max() <= 1
    assert (difference != 0).mean() <= 1e-3


@pytest.mark.parametrize("clip", [clip for clip in CLIPS if clip.startswith("pcm")])
@pytest.mark.parametrize("bits", BITS)
def test_minmax_of_pcm_is_the_reference_encoder(bits, clip):
    pcm = np.rint(GOLDEN[f"in.{clip}"] * 32768).astype(np.int16)[:, None]
    codes = encode(pcm, AudioSpec(16000, 1, bits, "linear", "minmax"))[:, 0]
    assert np.array_equal(codes, GOLDEN[f"linear_enc.{bits}.{clip}"])


@pytest.mark.parametrize("bits", BITS)
def test_decoders(bits):
    levels = GOLDEN[f"dec_levels.{bits}"]
    linear = decode(levels[:, None], AudioSpec(16000, 1, bits))[:, 0] / 32768
    np.testing.assert_allclose(linear, GOLDEN[f"linear_dec.{bits}"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(mulaw_expand(levels, bits), GOLDEN[f"mulaw_dec.{bits}"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("bits", BITS)
def test_the_start_code_is_the_reference_zero(bits):
    assert AudioSpec(16000, 1, bits).start_code == GOLDEN[f"q_zero.{bits}"][0]
