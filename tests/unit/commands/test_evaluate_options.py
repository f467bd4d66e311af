"""The options of evaluate.py that are refused, each by its key and with what to write instead."""

import numpy as np
import pytest

from stereo_sashimi.audio.io import write_pcm
from stereo_sashimi.commands.evaluate import evaluate_options as options
from stereo_sashimi.spec import AudioSpec

STEREO = AudioSpec(44100, 2, 16)


@pytest.mark.parametrize(
    ("read", "given", "message"),
    [
        (options.contexts, 0, r"segment_frames must be an integer of at least 1.*; got 0"),
        (options.contexts, [8, 8], r"segment_frames must hold .* each once"),
        *((options.shard, part, rf"shard must be .* from 1/4 to 4/4.*; got '{part}'") for part in ("5/4", "0/4", "1")),
        (lambda seconds: options.tracks({}, STEREO, seconds), 0.0, "max_seconds must give at least one frame"),
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
        ("mono.wav", r"mono\.wav is a file\. Give its folder"),
        ([], r"data is an empty list"),
        (["mono.wav", "mono.wav"], r"twice"),
        (["mono.wav"], r"mono\.wav has 1 channel, the model 2"),
        (["slow.wav"], r"slow\.wav has 8000 Hz, the model 44100 Hz\. Resample"),
        (["mono.wav", "slow.wav", "nothing.wav"], r"3 of 3 files cannot be evaluated:\n.*\n.*\n.*"),
    ],
)
def test_bad_recordings(tmp_path, monkeypatch, data, message):
    monkeypatch.chdir(tmp_path)
    for name, shape, rate in (("slow", (9, 2), 8000), ("mono", (9, 1), 44100), ("nothing", (0, 2), 44100)):
        write_pcm(tmp_path / f"{name}.wav", np.zeros(shape, np.int16), rate)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=message):
        options.tracks(options.files(data), STEREO, None)
