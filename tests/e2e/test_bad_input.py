"""Bad folders, files and options: one message that names the culprit and the remedy, and no traceback."""

import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from stereo_sashimi.app.errors import speak
from stereo_sashimi.app.train import run
from stereo_sashimi.audio.io import write_pcm


def noise(channels: int = 2, frames: int = 200) -> np.ndarray:
    return np.random.default_rng(frames).integers(-2000, 2000, (frames, channels)).astype(np.int16)


def good(folder: Path) -> None:
    for split in ("train", "valid", "test"):
        (folder / split).mkdir(parents=True)
        write_pcm(folder / split / f"{split}.wav", noise(), 44100)


def missing(folder: Path) -> None:
    assert not folder.exists()


def empty(folder: Path) -> None:
    folder.mkdir()


def two_files(folder: Path) -> None:
    folder.mkdir()
    for name in "ab":
        write_pcm(folder / f"{name}.wav", noise(), 44100)


def without_valid(folder: Path) -> None:
    good(folder)
    (folder / "valid" / "valid.wav").unlink()


def mono(folder: Path) -> None:
    good(folder)
    write_pcm(folder / "train" / "voice.wav", noise(channels=1), 44100)


def six_channels(folder: Path) -> None:
    good(folder)
    soundfile.write(folder / "train" / "surround.wav", noise(channels=6), 44100)


def not_a_number(folder: Path) -> None:
    good(folder)
    samples = noise().astype(np.float32) / 32768
    samples[70, 1] = np.nan
    soundfile.write(folder / "train" / "train.wav", samples, 44100, subtype="FLOAT")


def wide(folder: Path) -> None:
    good(folder)
    soundfile.write(folder / "train" / "train.wav", noise(), 44100, subtype="PCM_24")


def truncated(folder: Path) -> None:
    good(folder)
    path = folder / "train" / "train.wav"
    path.write_bytes(path.read_bytes()[:-100])


def zero_bytes(folder: Path) -> None:
    good(folder)
    (folder / "train" / "train.wav").write_bytes(b"")


def not_audio(folder: Path) -> None:
    good(folder)
    (folder / "train" / "train.wav").write_bytes(b"hello" + struct.pack("<20I", *range(20)))


def mixed_rates(folder: Path) -> None:
    good(folder)
    write_pcm(folder / "train" / "other.wav", noise(), 48000)


CASES: list[tuple[Callable[[Path], None], tuple[str, ...], str]] = [
    (missing, (), r"there is no folder .*data.*\n.*dataset\.path.*preprocess/musdb18stereo_wav\.py"),
    (empty, (), r"holds 0 audio files .*at least 3.*\n.*train/, valid/ and test/"),
    (two_files, (), r"holds 2 audio files"),
    (without_valid, (), r"valid/ is empty.*\n.*Put audio files"),
    (mono, (), r"is_stereo=true but clip voice\.wav has 1 channel.*\n.*dataset\.is_stereo=false.*dataset\.upmix=true"),
    (six_channels, (), r"clip surround\.wav has 6 channels.*\n.*Convert"),
    (not_a_number, (), r"train\.wav: NaN or infinity in frame 70"),
    (wide, (), r"train\.wav: 24-bit samples.*\n.*dataset\.requantize=true"),
    (truncated, (), r"train\.wav: the file ends early.*100 bytes.*\n.*fetch or make it again"),
    (zero_bytes, (), r"train\.wav: the file is empty"),
    (not_audio, (), r"train\.wav: not an audio file"),
    (mixed_rates, (), r"other\.wav has 48000 Hz|has 44100 Hz, but .*48000 Hz"),
    (good, ("dataset.sample_len=201",), r"none of 1 files has sample_len=201.*has 200.*\n.*dataset\.sample_len to 200"),
    (good, ("dataset.bits=12",), r"bits must be 8 or 16; got 12"),
    (good, ("dataset.quantization=ulaw",), r"quantization must be one of linear, mu-law; got 'ulaw'"),
    (good, ("dataset.normalize=loud",), r"normalize must be one of none, peak, minmax; got 'loud'"),
    (good, ("dataset.context_len=64",), r"dataset\.context_len must be below dataset\.sample_len=64"),
    (good, ("decoder.coupling=both",), r"decoder\.coupling must be one of independent, autoregressive; got 'both'"),
    (good, ("decoder.n_mixtures=0",), r"decoder\.n_mixtures must be an integer of at least 1; got 0"),
    (good, ("task.metrics=[bpb,accuracy]",), r"task\.metrics has accuracies, but decoder=dml .*task\.metrics=\[bpb\]"),
    (good, ("task.metrics=[acuracy]",), r"task\.metrics has no 'acuracy'; allowed: bpb"),
    (good, ("model.norm=batch",), r"model\.norm must be .*'batch'"),
    (good, ("model.layer.d_state=5",), r"d_state must be even.*got 5"),
    (good, ("model.layer.dt_transform=log",), r"dt_transform must be softplus or exp; got 'log'"),
    (good, ("encoder.merge=mean",), r"encoder\.merge must be one of concat, sum; got 'mean'"),
    (good, ("optimizer.lr=-1.0",), r"optimizer\.lr .*must be positive; got -1"),
    (good, ("scheduler.warmup_steps=9",), r"warmup_steps < total_steps; got 9 and 3"),
    (good, ("train.mode=least",), r"train\.mode must be min or max; got 'least'"),
    (good, ("train.seed=-1",), r"train\.seed must be 0 or more; got -1"),
    (good, ("backend.name=cuda",), r"backend must be one of auto, .*; got 'cuda'"),
    (good, ("checkpoint=absent.ckpt",), r"There is no checkpoint absent\.ckpt"),
    (good, ("+model.layer.d_sate=4",), r"Unknown key model\.layer\.d_sate\. Did you mean model\.layer\.d_state\?"),
]


@pytest.mark.parametrize(
    ("make", "options", "message"), CASES, ids=[f"{make.__name__} {' '.join(options)}" for make, options, _ in CASES]
)
def test_the_message_names_the_culprit(composed, small, tmp_path, monkeypatch, capsys, make, options, message):
    make(tmp_path / "data")
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.setenv(name, "0")
    monkeypatch.delenv("STEREO_SASHIMI_TRACEBACK", raising=False)
    cfg = composed(
        "train", *small, "experiment=audio/sashimi-sample", "scheduler.total_steps=3", "scheduler.warmup_steps=1",
        "logger=none", "train.validate_before=false", f"dataset.path={tmp_path / 'data'}",
        f"paths.run={tmp_path / 'run'}", *options,
    )  # fmt: skip
    with pytest.raises(SystemExit) as stopped:
        speak(run)(cfg)
    assert stopped.value.code == 1
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert "Traceback" not in error
    assert not error.startswith("Instantiation")
    assert len(error.strip().splitlines()) <= 4
    assert not list(tmp_path.glob("run/checkpoints/*"))


def test_the_good_folder_is_good(composed, small, tmp_path, monkeypatch):
    # Without this, the cases above could fail for another reason than theirs.
    good(tmp_path / "data")
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.setenv(name, "0")
    cfg = composed(
        "train", *small, "experiment=audio/sashimi-sample", "scheduler.total_steps=3", "scheduler.warmup_steps=1",
        "logger=none", f"dataset.path={tmp_path / 'data'}", f"paths.run={tmp_path / 'run'}",
    )  # fmt: skip
    assert run(cfg)["status"] == "finished"
