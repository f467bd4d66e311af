"""The door of is_stereo: how channel numbers are matched, and what is refused."""

import inspect

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stereo_sashimi.audio.channels import ChannelError, n_channels, to_channels

PCM = arrays(np.int16, st.tuples(st.integers(1, 50), st.just(2)), elements=st.integers(-32768, 32767))


def test_is_stereo_is_the_number_of_channels():
    assert (n_channels(False), n_channels(True)) == (1, 2)
    for value in ("false", 1, None):
        with pytest.raises(ValueError, match=r"dataset\.is_stereo must be true or false"):
            # Past the annotation, which is only enforced in some runs.
            inspect.unwrap(n_channels)(value)


@pytest.mark.parametrize("channels", [1, 2])
def test_equal_channels_are_untouched(channels):
    pcm = np.arange(8, dtype=np.int16).reshape(-1, channels)
    assert to_channels(pcm, channels) is pcm


@given(PCM)
@example(np.array([[-32768, -32768], [32767, 32767], [32767, 32766], [1, 0], [2, 1]], dtype=np.int16))
@settings(deadline=None, max_examples=50)
def test_downmix_is_the_rounded_average(pcm):
    mono = to_channels(pcm, 1)
    expected = [[round((int(left) + int(right)) / 2)] for left, right in pcm]
    assert mono.dtype == np.int16
    assert mono.tolist() == expected


@given(PCM)
@settings(deadline=None, max_examples=20)
def test_downmix_undoes_upmix(pcm):
    mono = pcm[:, :1]
    stereo = to_channels(mono, 2, upmix=True)
    assert stereo.shape[1] == 2
    assert np.array_equal(to_channels(stereo, 1), mono)


def test_mono_in_a_stereo_data_set_needs_upmix():
    with pytest.raises(ChannelError) as caught:
        to_channels(np.zeros((4, 1), np.int16), 2, name="vocals_003.wav", dataset="musdb18stereo")
    message = str(caught.value)
    assert "dataset 'musdb18stereo' has is_stereo=true but clip vocals_003.wav has 1 channel." in message
    assert "musdb18stereo_wav.py" in message
    assert "dataset.upmix=true" in message


def test_other_numbers_of_channels_are_refused():
    for found, wanted in ((0, 1), (3, 2), (6, 1), (6, 2)):
        with pytest.raises(ChannelError, match=f"surround.wav has {found} channels"):
            to_channels(np.zeros((4, found), np.int16), wanted, upmix=True, name="surround.wav")
