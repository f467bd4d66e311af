"""The doctor: what it says of a machine has been run, what it says of a folder is what training then meets."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from stereo_sashimi.audio.io import write_pcm
from stereo_sashimi.commands import doctor
from stereo_sashimi.commands.cli import main
from stereo_sashimi.commands.doctor import Findings, check_data
from stereo_sashimi.commands.train import build

FRAMES = 600


def noise(channels: int = 2, seed: int = 0, scale: int = 3000) -> np.ndarray:
    return np.random.default_rng(seed).integers(-scale, scale, (FRAMES, channels)).astype(np.int16)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four good stereo files."""
    for i in range(4):
        write_pcm(tmp_path / f"track{i}.wav", noise(seed=i), 44100)
    return tmp_path


@pytest.fixture
def quick_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without KeOps, which compiles for seconds where it was never used."""
    kernels = {name: kernel for name, kernel in doctor.KERNELS.items() if name != "keops"}
    monkeypatch.setattr(doctor, "KERNELS", kernels)


def examine(folder: Path, quick: bool) -> tuple[list[str], list[str]]:
    """Facts and problems of a folder."""
    found = Findings()
    check_data(found, folder, quick)
    return found.lines, found.problems


def used(facts: list[str]) -> list[str]:
    """The overrides of the line that says how to train."""
    (line,) = (line for line in facts if line.startswith("use "))
    words = shlex.split(line)
    assert words[1:3] == ["python", "train.py"]
    return words[3:]


def trainable(composed: Callable, words: list[str]) -> build.AudioDataModule:
    data = build.build_datamodule(composed("train", *words, "dataset.sample_len=50"))
    data.setup()
    for split in data.datasets.values():
        assert len(split[0][0]) == 50
    return data


def test_a_good_folder(composed, folder):
    facts, problems = examine(folder, quick=False)
    assert problems == []
    assert used(facts) == ["experiment=audio/folder", f"dataset.path={folder}", "dataset.is_stereo=true"]
    assert any(line.split()[:3] == ["rates", "44100", "Hz:"] for line in facts)
    data = trainable(composed, used(facts))
    assert data.d_input == 2
    told = {line.split()[0]: line for line in facts if line}
    assert data.split.rule in told["split"]
    for split, files in data.split.files.items():
        assert f"{len(files)} files, " in told[split]
        assert all(path.name in told[split] for path in files[:3])
    assert "validation is tiny: 1 clips, 0.0 s" in told["warning"]
    cfg = composed("train", "experiment=audio/folder", "dataset.path=here").dataset
    assert (cfg.train_percentage, cfg.sample_len, cfg.split) == (doctor.TRAIN_PERCENTAGE, doctor.SAMPLE_LEN, "hash")


@pytest.mark.parametrize(
    ("channels", "rate", "subtype", "word"),
    [
        (2, 22050, "PCM_16", "dataset.sample_rate=44100"),
        (2, 44100, "PCM_24", "dataset.requantize=true"),
        (1, 44100, "PCM_16", "dataset.upmix=true"),
    ],
)
def test_what_needs_an_override_gets_it(composed, folder, channels, rate, subtype, word):
    soundfile.write(folder / "other.wav", noise(channels), rate, subtype=subtype)
    facts, problems = examine(folder, quick=False)
    assert problems == []
    assert word in used(facts)
    trainable(composed, used(facts))
    with pytest.raises(ValueError, match=word.partition("=")[0]):
        trainable(composed, [other for other in used(facts) if other != word])


@pytest.mark.parametrize(
    "name", ["two words", "a=b", "it's", 'say "hi"', "Ünïcode", "a,b {c}", "back\\slash", '\\"', "end\\"]
)
def test_folders_of_any_name_can_be_typed(composed, tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    for i in range(3):
        write_pcm(folder / f"{i}.wav", noise(1, i), 44100)
    facts, problems = examine(folder, quick=True)
    assert problems == []
    assert trainable(composed, used(facts)).folder == folder


def not_finite(path: Path) -> None:
    samples = noise().astype(np.float32) / 32768
    samples[7] = np.nan
    soundfile.write(path, samples, 44100, subtype="FLOAT")


def cut_short(path: Path) -> None:
    write_pcm(path, noise(), 44100)
    path.write_bytes(path.read_bytes()[:-300])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (not_finite, "NaN or infinity in frame 7"),
        (Path.touch, "the file is empty"),
        (lambda path: soundfile.write(path, np.zeros((0, 2), np.int16), 44100), "no frames"),
        (lambda path: path.write_text("hello, this is text"), "not an audio file"),
        (cut_short, "ends early"),
        (lambda path: soundfile.write(path, noise(6), 44100), "more than 2 channels"),
    ],
)
def test_a_bad_file_is_one_problem_that_names_it_and_is_left_out(composed, folder, spoil, words):
    (folder / "sub [1], x").mkdir()
    spoil(folder / "sub [1], x" / "bad.wav")
    facts, problems = examine(folder, quick=False)
    (problem,) = problems
    assert 'dataset.exclude=["sub [1], x/bad.wav"]' in used(facts)
    assert trainable(composed, used(facts)).split.left_out == "1 excluded"
    assert re.fullmatch(f".*bad\\.wav.*{words}.*", problem), problem
    if spoil is not_finite:
        assert examine(folder, quick=True)[1] == [], "headers alone are read"


def test_silent_and_clipped_files_are_told(folder):
    write_pcm(folder / "hush.wav", np.zeros((FRAMES, 2), np.int16), 44100)
    write_pcm(folder / "loud.wav", np.full((FRAMES, 2), -32768, np.int16), 44100)
    facts, problems = examine(folder, quick=False)
    assert problems == []
    told = {line.split()[0]: line for line in facts}
    assert "hush.wav" in told["silent"]
    assert 'dataset.exclude=["hush.wav"]' in used(facts)
    assert "loud.wav" in told["clipped"]
    assert "track" not in told["silent"] + told["clipped"]


def test_too_few_files_and_kinds_that_are_not_read(tmp_path):
    write_pcm(tmp_path / "only.wav", noise(), 44100)
    (tmp_path / "song.mp3").touch()
    assert any("1 .mp3; only .wav, .flac, .ogg are" in line for line in examine(tmp_path, quick=True)[0])
    assert "at least 3" in examine(tmp_path, quick=False)[1][0]
    assert "no folder" in examine(tmp_path / "missing", quick=False)[1][0]


@pytest.mark.slow
@pytest.mark.usefixtures("quick_machine")
def test_the_command_on_a_good_and_on_a_bad_folder(folder, capsys):
    main("doctor", [f"data={folder}"])
    out = capsys.readouterr().out
    assert "ready: training can run" in out
    assert "\x1b" not in out
    for word in ("torch", "backend krylov, cpu: runs", "backend reference, cpu: runs", "audio .flac"):
        assert word in out
    (folder / "bad.wav").touch()
    with pytest.raises(SystemExit) as stopped:
        main("doctor", [f"data={folder}", "quick=true"])
    assert stopped.value.code == 1
    assert "1 problem:\n- " in capsys.readouterr().out


def test_a_misspelt_key_is_refused(capsys):
    with pytest.raises(SystemExit) as stopped:
        main("doctor", ["date=here"])
    assert stopped.value.code == 1
    assert "data" in capsys.readouterr().err


def broken(ssm, length, dtype):
    raise RuntimeError(f"no such kernel image, {'and more of it, ' * 20}whole\nsecond line")


def wrong(ssm, length, dtype):
    return doctor.KERNELS["reference"](ssm, length, dtype) * 1.001


@pytest.mark.parametrize(
    ("name", "kernel", "line", "problems"),
    [
        ("krylov", wrong, "krylov, cpu computes wrong kernels", 1),
        ("auto", broken, "auto, cpu: does not run (no such kernel image, and", 1),
        # Only what auto would take is a problem.
        ("cuda_only", broken, "cuda_only, cpu: does not run (no such kernel image, and", 0),
    ],
)
def test_backends_that_compute_something_else_or_fail(monkeypatch, name, kernel, line, problems):
    right = doctor.KERNELS["krylov"]
    if name == "cuda_only":
        monkeypatch.setattr(doctor, "resolve", lambda backend: backend)
    monkeypatch.setattr(doctor, "KERNELS", {"reference": right, "auto": right} | {name: kernel})
    found = Findings()
    doctor.check_backends(found)
    assert any(line in told for told in found.lines + found.problems), found.lines
    assert kernel is wrong or any(line.endswith("of it, whole)") for line in found.lines), "no word is cut"
    assert len(found.problems) == problems


@pytest.mark.parametrize(
    ("cores", "threads", "busy", "advice"),
    [(8, 8, 0.2, None), (2, 1, 5.0, None), (4, 4, 3.1, "OMP_NUM_THREADS=1"), (2, 16, 0.0, "OMP_NUM_THREADS=2")],
)
def test_threads_that_would_wait_for_each_other(cores, threads, busy, advice):
    told = doctor.thread_advice(cores, threads, busy)
    assert (told is None) if advice is None else advice in told


def test_cores_are_counted():
    assert 1 <= doctor.usable_cores() <= 4096
