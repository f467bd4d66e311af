"""Streamed samples: what is kept when something ends them, and memory that does not grow with their length."""

import json
import os
import signal
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from stereo_sashimi.audio import writers as files
from stereo_sashimi.audio.io import AudioError, read_pcm
from stereo_sashimi.audio.writers import PcmPipe
from stereo_sashimi.commands.generate.generate_options import GenerateOptions, SamplingJob
from stereo_sashimi.commands.generate.live import draw_live
from stereo_sashimi.commands.shared.progress import DrawMeter
from stereo_sashimi.distributions.sampler import Sampler
from stereo_sashimi.generation.results import Block
from stereo_sashimi.metrics.stereo import describe
from stereo_sashimi.signals import Stopped, listening
from stereo_sashimi.spec import AudioSpec
from tiny_config import tiny_config

SPEC = AudioSpec(8000, 2, 8)
PROMPT, DRAWN = 100, 64


class Takes(SamplingJob):
    """Blocks of noise for two samples; before block `at` something happens."""

    at, happening = -1, staticmethod(lambda: None)

    def blocks(self) -> Iterator[Block]:
        rng = np.random.default_rng(0)
        count = 10**9 if self.n_frames is None else 1 + self.n_frames // DRAWN
        for i in range(count):
            if i == self.at:
                type(self).happening()
            frames = DRAWN if i else PROMPT
            pcm = rng.integers(-9000, 9000, (len(self.options.seeds), frames, 2)).astype(np.int16)
            yield Block(pcm, np.full((len(self.options.seeds), 2), 0.5 * frames), i > 0, 0.001 if i else 0.0)


@pytest.fixture(scope="module")
def model():
    return replace(tiny_config(), spec=SPEC).build()


@pytest.fixture
def job(model, tmp_path):
    """`job(n_frames, at=block, happening=function)`."""

    def make(n_frames=None, at=-1, happening=lambda: None, names=("a", "b")) -> SamplingJob:
        kind = type("Takes", (Takes,), {"at": at, "happening": staticmethod(happening)})
        seeds = tuple(range(max(1, len(names))))
        options = GenerateOptions(torch.device("cpu"), Sampler(), seeds, prompt="p.wav", stream=True)
        files = [tmp_path / f"{name}.wav" for name in names]
        return kind(options, model, tmp_path / "c.ckpt", "reference", n_frames, files=files)

    return make


def expected(blocks: int, row: int = 0) -> np.ndarray:
    """What the first blocks behind the prompt and the prompt itself are in a file."""
    rng = np.random.default_rng(0)
    sizes = [PROMPT] + [DRAWN] * blocks
    return np.concatenate([rng.integers(-9000, 9000, (2, n, 2)).astype(np.int16)[row] for n in sizes])


def kill(number: int):
    return lambda: os.kill(os.getpid(), number)


def live(job: SamplingJob, pipe: PcmPipe | None = None) -> list[Path]:
    with listening() as signals:
        return draw_live(job, signals, pipe)


def test_every_sample_gets_its_file_and_its_numbers(job, tmp_path, capsys):
    made = live(job(10 * DRAWN))
    assert made == [tmp_path / "a.wav", tmp_path / "b.wav"]
    for row, path in enumerate(made):
        pcm = read_pcm(path)[0]
        assert np.array_equal(pcm, expected(10, row))
        settings = json.loads(path.with_suffix(".json").read_text())
        expected_of = {"file": path.name, "seed": row, "stopped": None, "frames": 640, "prompt_frames": PROMPT}
        assert settings.items() >= (expected_of | {"audio": describe(pcm, 8000)}).items()
        bits = [settings[key]["pooled"] for key in ("bits_per_sample", "prompt_bits_per_sample")]
        assert bits == pytest.approx([0.5 / np.log(2)] * 2)
        assert (settings["frames_per_s"], settings["real_time_factor"]) == pytest.approx((64_000, 8))
    out = capsys.readouterr().out
    assert f"writing {tmp_path / 'a.part.wav'}\n" in out
    assert f"{tmp_path / 'a.wav'}  0.09 s  0.721 bits/sample  64,000 frames/s, 8 x real time\n" in out
    assert {path.name for path in tmp_path.iterdir()} == {f"{n}{s}" for n in "ab" for s in (".wav", ".json")}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_signal_completes_the_files_and_more_disturb_nothing(job, tmp_path, monkeypatch, number):
    before, save, sent = signal.getsignal(number), SamplingJob.save_json, []

    def signalled(*arguments):
        os.kill(os.getpid(), signal.SIGINT)
        save(*arguments)
        sent.append(os.kill(os.getpid(), signal.SIGTERM))

    monkeypatch.setattr(SamplingJob, "save_json", signalled)
    with pytest.raises(SystemExit) as stopped:
        live(job(at=5, happening=kill(number)))
    assert (stopped.value.code, len(sent)) == (128 + number, 2)
    assert signal.getsignal(number) is before
    for row, name in enumerate("ab"):
        # Four blocks lay behind the prompt; the fifth had begun.
        assert np.array_equal(read_pcm(tmp_path / f"{name}.wav")[0], expected(4, row))
        assert json.loads((tmp_path / f"{name}.json").read_text())["stopped"] == number.name
    assert len(list(tmp_path.iterdir())) == 4


def test_a_signal_behind_the_prompt_leaves_nothing(job, tmp_path):
    with pytest.raises(Stopped) as stopped:
        live(job(at=1, happening=kill(signal.SIGTERM)))
    assert stopped.value.code == 143
    assert list(tmp_path.iterdir()) == []


def test_a_full_wav_file_is_the_end(job, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(files, "WAV_BYTES", 4 * (PROMPT + 3 * DRAWN + 10))
    live(job())
    assert np.array_equal(read_pcm(tmp_path / "a.wav")[0], expected(3))
    settings = json.loads((tmp_path / "a.json").read_text())
    assert (settings["stopped"], settings["frames"]) == ("full", 3 * DRAWN)
    assert "holds no more than 4 GiB. stdout=true has no such limit" in capsys.readouterr().out


def test_a_disk_that_cannot_be_written_keeps_the_files(job, tmp_path, monkeypatch):
    write, calls = files.WavStream.write, []

    def full(self, pcm):
        calls.append(self.path.name)
        if len(calls) == 6:
            raise AudioError(f"{self.part}: cannot write on (No space left on device).")
        write(self, pcm)

    monkeypatch.setattr(files.WavStream, "write", full)
    with pytest.raises(AudioError, match=r"(?s)b\.part\.wav: cannot write on .*\n  What was drawn .* in .*a\.wav \(0"):
        live(job())
    assert np.array_equal(read_pcm(tmp_path / "a.wav")[0], expected(2))
    assert np.array_equal(read_pcm(tmp_path / "b.wav")[0], expected(1, 1))
    assert len(list(tmp_path.iterdir())) == 2


def test_a_second_file_that_cannot_be_made_leaves_nothing_and_an_error_of_the_model_keeps_all(job, tmp_path, capsys):
    (tmp_path / "b.part.wav").mkdir()
    with pytest.raises(AudioError, match=r"b\.part\.wav: cannot write the file \(Is a directory\)"):
        live(job())
    assert [path.name for path in tmp_path.iterdir()] == ["b.part.wav"]
    (tmp_path / "b.part.wav").rmdir()
    with pytest.raises(ZeroDivisionError):
        live(job(at=3, happening=lambda: 1 // 0))
    assert np.array_equal(read_pcm(tmp_path / "a.wav")[0], expected(2))
    assert "What was drawn until then is in" in capsys.readouterr().err


@pytest.mark.parametrize("names", [(), ("a",)], ids=["alone", "with a file"])
def test_a_listener_who_leaves(job, tmp_path, names, capsys):
    reader, writer = os.pipe()
    heard = b""

    def listen() -> None:
        nonlocal heard
        while len(heard) < 4 * (PROMPT + 2 * DRAWN):
            heard += os.read(reader, 4 * DRAWN)
        os.close(reader)

    thread = threading.Thread(target=listen)
    thread.start()
    with pytest.raises(SystemExit) as stopped:
        live(job(names=names), PcmPipe(writer))
    thread.join()
    os.close(writer)
    assert stopped.value.code == 141
    if names:
        pcm = read_pcm(tmp_path / "a.wav")[0]
        assert pcm.astype("<i2").tobytes().startswith(heard)
        assert json.loads((tmp_path / "a.json").read_text())["stopped"] == "SIGPIPE"
    else:
        assert list(tmp_path.iterdir()) == []
        assert capsys.readouterr() == ("", "")


def test_a_listener_who_pauses_keeps_no_signal_away(job, tmp_path):
    reader, writer = os.pipe()

    def pause() -> None:
        # Until the pipe is full, as nobody reads: 64 KiB are 16,384 frames.
        part = tmp_path / "a.part.wav"
        while not part.exists() or part.stat().st_size < 44 + 4 * 16384:
            time.sleep(0.01)
        # A signal that comes between Python's last look and the write itself would find it blocked for good.
        time.sleep(0.5)
        kill(signal.SIGTERM)()

    thread = threading.Thread(target=pause)
    thread.start()
    with pytest.raises(SystemExit) as stopped:
        live(job(names=("a",)), PcmPipe(writer))
    thread.join()
    os.close(reader)
    os.close(writer)
    assert stopped.value.code == 143
    assert len(read_pcm(tmp_path / "a.wav")[0]) >= 16384


def test_memory_does_not_grow(job):
    """0.15 MB of samples go through; a list of them, or of their blocks, would be seen."""
    sizes = []
    tracemalloc.start()
    try:
        for at in (100, 700):
            live(job(at * DRAWN, at, lambda: sizes.append(tracemalloc.get_traced_memory()[0]), ("a",)))
    finally:
        tracemalloc.stop()
    assert sizes[1] - sizes[0] < 50_000


def test_lines_where_there_is_no_terminal(monkeypatch, capsys):
    assert not sys.stderr.isatty()
    clock = iter([0.0, 4.0, 11.0, 11.0, 12.0, 30.0, 30.0])
    monkeypatch.setattr("stereo_sashimi.commands.shared.progress.time.monotonic", lambda: next(clock))
    pcm, nats = np.zeros((1, 800, 2), np.int16), np.zeros((1, 2))
    with DrawMeter(SPEC, 8000) as meter:
        parts = [Block(pcm, nats, drawn, 0.5) for drawn in (False, True, True, True, True)]
        assert list(meter.watch(parts)) == parts
    assert capsys.readouterr().err.splitlines() == [
        "sampling  0.2 of 1.0 s  1,600 frames/s, 0.2 x real time",
        "sampling  0.4 of 1.0 s  1,600 frames/s, 0.2 x real time",
    ]
