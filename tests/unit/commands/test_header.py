"""The lines at the start of a run: here, what they say about files with another number of channels."""

import re

import numpy as np
import pytest

from stereo_sashimi.audio.io import write_pcm
from stereo_sashimi.commands.train.header import header
from stereo_sashimi.data.datamodule import AudioDataModule
from stereo_sashimi.models.language_model_config import LanguageModelConfig
from stereo_sashimi.models.sashimi import SashimiConfig
from stereo_sashimi.nn import CategoricalHeadConfig, EmbeddingConfig, S4DConfig
from stereo_sashimi.schema import to_plain
from stereo_sashimi.tasks import AutoregressiveTask
from stereo_sashimi.tasks.optim import AdamWConfig

BACKBONE = SashimiConfig(d_model=4, n_layers=1, pool=(2,), layer=S4DConfig(d_state=4))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "precision 32  device"),
        ({"activation_checkpointing": True}, "precision 32  activation checkpointing  device"),
        ({"activation_checkpointing": True, "compile": True}, "32  compiled  activation checkpointing  device"),
    ],
)
def test_ways_of_running_are_told(tmp_path, options, words):
    for split in ("train", "valid", "test"):
        (tmp_path / split).mkdir()
        write_pcm(tmp_path / split / "a.wav", np.zeros((40, 1), np.int16), 8000)
    data = AudioDataModule(name="mine", path=str(tmp_path), sample_len=20, bits=8)
    data.setup("fit")
    model = LanguageModelConfig(data.spec, EmbeddingConfig(4), BACKBONE, CategoricalHeadConfig())
    task = AutoregressiveTask(model.to_plain(), to_plain(AdamWConfig()), **options)
    text = header(task, data, backend="auto", device="cpu", precision="32", run="runs/1", seed=0, resume="")
    assert words in next(line for line in text.splitlines() if line.startswith("backend"))


def test_lanes_are_told(tmp_path):
    for split, n in (("train", 2), ("valid", 1), ("test", 1)):
        (tmp_path / split).mkdir()
        for i in range(n):
            write_pcm(tmp_path / split / f"{i}.wav", np.zeros((40, 2), np.int16), 8000)
    lines = []
    for rows, carry in ((2, True), (1, True), (2, False)):
        options = {"is_stereo": True, "batch_size": rows, "carry_state": carry}
        data = AudioDataModule(name="mine", path=str(tmp_path), sample_len=20, bits=8, **options)
        data.setup("fit")
        model = LanguageModelConfig(data.spec, EmbeddingConfig(4), BACKBONE, CategoricalHeadConfig())
        task = AutoregressiveTask(model.to_plain(), to_plain(AdamWConfig()), carry_state=carry)
        text = header(task, data, backend="auto", device="cpu", precision="32", run="runs/1", seed=0, resume="")
        lines.append(text.splitlines()[0])
    assert lines[0].endswith("  state carried over in 2 lanes")
    assert lines[1].endswith("  state carried over in 1 lane")
    assert "carried" not in lines[2]


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
    for split, n in zip(("train", "valid", "test"), channels, strict=True):
        (tmp_path / split).mkdir()
        write_pcm(tmp_path / split / "a.wav", np.zeros((40, n), np.int16), 8000)
    data = AudioDataModule(name="mine", path=str(tmp_path), sample_len=20, bits=8, **options)
    data.setup("fit")
    model = LanguageModelConfig(data.spec, EmbeddingConfig(4), BACKBONE, CategoricalHeadConfig())
    task = AutoregressiveTask(model.to_plain(), to_plain(AdamWConfig()))
    text = header(task, data, backend="auto", device="cpu", precision="32", run="runs/1", seed=0, resume="")
    first, second = text.splitlines()[:2]
    assert re.match(r"data +mine ", first)
    of = "1 file, 0.0 s (a.wav)"
    assert second == f"split    by subfolders  train {of}  valid {of}  test 1 file (a.wav)"
    assert re.search(r"\nwarning  validation is silent: .*\n(.*\n)*resume", text)
    assert first.endswith("2 train + 2 valid clips of 0.00 s" + (f"  {note}" if note else ""))
