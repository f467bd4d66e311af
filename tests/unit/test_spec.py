"""AudioSpec: what it derives, that it is a value, and what it refuses."""

import pytest

from stereo_sashimi.spec import AudioSpec


@pytest.mark.parametrize(
    ("bits", "n_levels", "start_code"), [(8, 256, 128), (16, 65536, 32768), (24, 1 << 24, 1 << 23)]
)
def test_levels_and_start_code_follow_from_the_bits(bits, n_levels, start_code):
    spec = AudioSpec(44100, 2, bits)
    assert spec.n_levels == n_levels
    assert spec.start_code == start_code


def test_channels_have_names_for_people():
    assert AudioSpec(44100, 1, 8).channel_names == ("mono",)
    assert AudioSpec(44100, 2, 8).channel_names == ("left", "right")


def test_the_default_leaves_pcm_untouched():
    spec = AudioSpec(44100, 2, 16)
    assert (spec.quantization, spec.normalize) == ("linear", "none")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sample_rate": True}, r"AudioSpec\.sample_rate must be an integer; got True"),
        ({"n_channels": 0}, r"AudioSpec\.n_channels must be 1 \(mono\) or 2 \(stereo\); got 0"),
        ({"n_channels": 6}, r"AudioSpec\.n_channels"),
        ({"bits": 12}, r"AudioSpec\.bits must be 8, 16 or 24; got 12"),
    ],
    ids=str,
)
def test_wrong_fields_are_refused_by_name(fields, message):
    with pytest.raises(ValueError, match=message):
        AudioSpec(**{"sample_rate": 44100, "n_channels": 2, "bits": 16, **fields})
