"""The lines at the start of a run: here, what they say about files with another number of channels."""

import re
from dataclasses import replace

import numpy as np
import pytest

from stereo_sashimi.audio.io import write_pcm
from stereo_sashimi.commands.train.header import header
from stereo_sashimi.data.datamodule import AudioDataModule
from stereo_sashimi.schema import to_plain
from stereo_sashimi.tasks import AutoregressiveTask
from stereo_sashimi.tasks.optim import AdamWConfig
from tiny_config import tiny_config


def write(folder, train=(1,), valid=1, test=1) -> None:
    """Files of 40 frames with these numbers of channels."""
    for split, channels in (("train", train), ("valid", (valid,)), ("test", (test,))):
        (folder / split).mkdir()
        for name, n in zip("ab", channels, strict=False):
            write_pcm(folder / split / f"{name}.wav", np.zeros((40, n), np.int16), 8000)


def header_of(folder, task=(), **options) -> str:
    data = AudioDataModule(name="mine", path=str(folder), sample_len=20, bits=8, **options)
    data.setup("fit")
    model = replace(tiny_config(), spec=data.spec)
    training = AutoregressiveTask(model.to_plain(), to_plain(AdamWConfig()), **dict(task))
    return header(training, data, backend="auto", device="cpu", precision="32", run="runs/1", seed=0, resume="")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "precision 32  device"),
        ({"activation_checkpointing": True}, "precision 32  activation checkpointing  device"),
        ({"activation_checkpointing": True, "compile": True}, "32  compiled  activation checkpointing  device"),
    ],
)
def test_ways_of_running_are_told(tmp_path, options, words):
    write(tmp_path)
    text = header_of(tmp_path, options)
    assert words in next(line for line in text.splitlines() if line.startswith("backend"))


@pytest.mark.parametrize(
    ("rows", "carry", "words"),
    [(2, True, "  state carried over in 2 lanes\n"), (1, True, "  state carried over in 1 lane\n"), (2, False, "")],
)
def test_lanes_are_told(tmp_path, rows, carry, words):
    write(tmp_path, train=(2, 2), valid=2, test=2)
    text = header_of(tmp_path, {"carry_state": carry}, is_stereo=True, batch_size=rows, carry_state=carry)
    first = text.splitlines(keepends=True)[0]
    assert first.endswith(words)
    assert ("carried" in first) == carry


@pytest.mark.parametrize(
    ("channels", "options", "note"),
    [
        ((2, 2, 2), {"is_stereo": True}, ""),
        ((1, 1, 1), {}, ""),
        ((2, 2, 2), {}, "2 stereo files mixed down to mono"),
        ((1, 2, 1), {}, "1 stereo file mixed down to mono"),
        ((1, 2, 1), {"is_stereo": True, "upmix": True}, "1 mono file copied to both channels"),
        ((1, 1, 2), {"is_stereo": True, "upmix": True}, "2 mono files copied to both channels"),
    ],
)
def test_files_that_are_mixed_down_or_up_are_told(tmp_path, channels, options, note):
    write(tmp_path, channels[:1], *channels[1:])
    text = header_of(tmp_path, **options)
    first, second = text.splitlines()[:2]
    assert re.match(r"data +mine ", first)
    of = "1 file, 0.0 s (a.wav)"
    assert second == f"split    by subfolders  train {of}  valid {of}  test 1 file (a.wav)"
    assert re.search(r"\nwarning  validation is silent: .*\n(.*\n)*resume", text)
    assert first.endswith("2 train + 2 valid clips of 0.00 s" + (f"  {note}" if note else ""))
