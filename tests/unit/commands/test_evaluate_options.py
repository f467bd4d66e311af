"""The options of evaluate.py that are refused, each by its key and with what to write instead."""

import os

import numpy as np
import pytest
import soundfile

from stereo_sashimi.audio.io import write_pcm
from stereo_sashimi.audio.quantize import encode
from stereo_sashimi.commands.evaluate import evaluate_options as options
from stereo_sashimi.commands.evaluate.recordings import Conversions, files, tracks
from stereo_sashimi.data.dataset import AudioFolder
from stereo_sashimi.spec import AudioSpec

STEREO = AudioSpec(44100, 2, 16)


@pytest.mark.parametrize(
    ("read", "given", "message"),
    [
        (options.contexts, 0, r"segment_frames must be an integer of at least 1.*; got 0"),
        (options.contexts, [8, 8], r"segment_frames must hold .* each once"),
        *((options.shard, part, rf"shard must be .* from 1/4 to 4/4.*; got '{part}'") for part in ("5/4", "0/4", "1")),
        (lambda seconds: tracks({}, STEREO, seconds), 0.0, "max_seconds must give at least one frame"),
    ],
)
def test_bad_values(read, given, message):
    with pytest.raises(ValueError, match=message):
        read(given)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("empty", r"data=.* holds no audio files"),
        ("absent", r"There is no folder .*absent"),
        ("pipe.wav", r"There is no folder pipe\.wav"),
        ("pipes", r"pipe\.wav: not a file but a pipe"),
        ("mono.wav", r"mono\.wav has 1 channel, the model 2\. Set upmix=true"),
        ([], r"data is an empty list"),
        (["mono.wav", "mono.wav"], r"twice"),
        (["pipe.wav"], r"pipe\.wav: not a file but a pipe"),
        (["slow.wav"], r"slow\.wav has 8000 Hz, the model 44100 Hz\. Set resample=true"),
        (["wide.wav"], r"wide\.wav has 24-bit samples\. Set requantize=true"),
        (["four.wav"], r"four\.wav has 4 channels; 1 and 2 can be used"),
        (["mono.wav", "slow.wav", "nothing.wav"], r"3 of 3 files cannot be evaluated:\n.*\n.*\n.*"),
    ],
)
def test_bad_recordings(tmp_path, monkeypatch, data, message):
    monkeypatch.chdir(tmp_path)
    shapes = {"slow": (9, 2), "mono": (9, 1), "nothing": (0, 2), "four": (9, 4)}
    for name, shape in shapes.items():
        write_pcm(tmp_path / f"{name}.wav", np.zeros(shape, np.int16), 8000 if name == "slow" else 44100)
    soundfile.write("wide.wav", np.zeros((9, 2)), 44100, subtype="PCM_24")
    for folder in ("empty", "pipes"):
        (tmp_path / folder).mkdir()
    os.mkfifo("pipe.wav")
    os.mkfifo("pipes/pipe.wav")
    with pytest.raises(ValueError, match=message):
        tracks(files(data), STEREO, None)


@pytest.mark.parametrize("n_channels", [1, 2])
def test_conversions_are_those_of_training(tmp_path, n_channels):
    rng, spec = np.random.default_rng(0), AudioSpec(44100, n_channels, 16)
    for name, channels, subtype, rate in (
        ("a", 1, "PCM_24", 44100),
        ("b", 2, "PCM_16", 48000),
        ("c", 2, "FLOAT", 8000),
    ):
        soundfile.write(tmp_path / f"{name}.wav", rng.uniform(-0.9, 0.9, (3000, channels)), rate, subtype=subtype)
    found = tracks(files(str(tmp_path)), spec, None, Conversions(resample=True, requantize=True, upmix=True))
    paths = [track.path for track in found]
    options = {"resampler": "soxr", "requantize": True, "upmix": True}
    trained = AudioFolder(paths, spec, 10**6, drop_last=False, cache_folder=tmp_path, **options)
    for i, track in enumerate(found):
        np.testing.assert_array_equal(encode(track.read(spec), spec), trained[i][0].numpy())
    (begin,) = tracks({"b": tmp_path / "b.wav"}, spec, 0.01, Conversions(resample=True))
    np.testing.assert_array_equal(begin.read(spec), found[1].read(spec)[:441])


def test_exclude_leaves_files_out_by_their_names(tmp_path):
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / name, np.zeros((10, 2), np.int16), 44100)
    assert list(files(str(tmp_path), ["b.wav"])) == ["a.wav"]
    with pytest.raises(ValueError, match=r"exclude names 'c.wav'"):
        files(str(tmp_path), ["c.wav"])
    with pytest.raises(ValueError, match="leaves nothing"):
        files(str(tmp_path), ["a.wav", "b.wav"])
