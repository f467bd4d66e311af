"""Sampling: engines, streams, prompts of another rate, and signals; the command as a process is in another file."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import stereo_sashimi
from stereo_sashimi.audio.io import write_pcm
from stereo_sashimi.commands.generate import generate_command as generate
from stereo_sashimi.commands.generate.sampling_job import SamplingJob
from stereo_sashimi.generation.engines.engine import EngineError
from stereo_sashimi.spec import AudioSpec


@pytest.fixture(autouse=True)
def _cheap_pictures(monkeypatch):
    monkeypatch.setattr(generate, "sheet", lambda pcm, rate, title: title)
    monkeypatch.setattr(generate, "save_png", lambda figure, path: path.write_text(figure))


def pcm_of(file: Path) -> np.ndarray:
    return soundfile.read(file, dtype="int16", always_2d=True)[0]


def settings_of(file: Path) -> dict:
    return json.loads(file.with_suffix(".json").read_text())


def test_the_engine_is_a_choice(sample, capsys):
    (wav,) = sample("engine=reference")
    assert settings_of(wav)["engine"] == "reference"
    assert "  engine reference  device cpu" in capsys.readouterr().out


def test_the_temperatures_of_a_mixture(sample):
    (plain,), (cold,) = sample(), sample("mixture_temperature=0", "scale_temperature=0.5")
    assert cold.name == "sample-mixture0-scale0.5-seed0.wav"
    assert (settings_of(cold)["mixture_temperature"], settings_of(cold)["scale_temperature"]) == (0, 0.5)
    assert not np.array_equal(pcm_of(plain), pcm_of(cold))


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_a_stream_is_the_sample(sample, tmp_path, prompt, suffix, capsys):
    common = (f"prompt={prompt}", "n_samples=2", "seconds=0.003")
    whole = sample(*common, f"format={suffix}")
    streamed = sample(*common, "stream=true", f"out={tmp_path / 'streamed'}")
    assert [path.name for path in streamed] == [f"prompt-continued-seed{seed}.wav" for seed in (0, 1)]
    assert f"writing {tmp_path}/streamed/prompt-continued-seed0.part.wav\n" in capsys.readouterr().out
    for one, other in zip(whole, streamed, strict=True):
        assert soundfile.info(one).format == suffix.upper()
        assert np.array_equal(pcm_of(one), pcm_of(other))
        first, second = settings_of(one) | {"file": other.name}, settings_of(other)
        for measured in ("frames_per_s", "real_time_factor"):
            assert first.pop(measured) > 0
            assert second.pop(measured) > 0
        assert second == first
    assert {path.suffix for path in (tmp_path / "streamed").iterdir()} == {".wav", ".json"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
@pytest.mark.parametrize("options", [(), ("stream=true",)], ids=["whole", "stream"])
def test_a_signal_before_the_first_frame_leaves_nothing(sample, tmp_path, monkeypatch, capsys, number, options):
    def killed(self):
        os.kill(os.getpid(), number)
        yield from ()

    monkeypatch.setattr(SamplingJob, "blocks", killed)
    with pytest.raises(SystemExit) as stopped:
        sample(*options)
    assert stopped.value.code == 128 + number
    assert capsys.readouterr().err == "\nInterrupted.\n"
    assert list((tmp_path / "out").iterdir()) == []


def test_a_prompt_of_another_rate_is_converted_when_asked(sample, tmp_path, capsys):
    time = np.arange(960) / 48000
    pcm = np.rint(9000 * np.sin(2 * np.pi * np.stack([300 * time, 500 * time], axis=1))).astype(np.int16)
    write_pcm(tmp_path / "fast.wav", pcm, 48000)
    for limit, frames in (((), 882), (("prompt_seconds=0.01",), 441)):
        (wav,) = sample(f"prompt={tmp_path / 'fast.wav'}", "prompt_resample=true", *limit)
        assert f"{tmp_path}/fast.wav resampled from 48000 Hz to 44100 Hz" in capsys.readouterr().out
        assert settings_of(wav)["prompt_resampled_from"] == 48000
        assert settings_of(wav)["prompt_frames"] == frames
        expected = stereo_sashimi.read(tmp_path / "fast.wav", AudioSpec(44100, 2, 16), frames, resample=True)
        assert np.array_equal(pcm_of(wav)[:frames], expected)


def test_a_prompt_of_the_same_rate_is_not_converted(sample, prompt):
    (wav,) = sample(f"prompt={prompt}", "prompt_resample=true")
    assert settings_of(wav)["prompt_resampled_from"] is None
    assert np.array_equal(pcm_of(wav)[:88], pcm_of(prompt))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_an_engine_that_cannot_run_here(sample, tmp_path):
    with pytest.raises(EngineError, match=r"cudagraph.*CUDA"):
        sample("engine=cudagraph")
    assert not (tmp_path / "out").exists()


def test_a_terminal_gets_no_samples(sample, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    with pytest.raises(ValueError, match=r"standard output is a terminal\..*\n.*\| aplay -f S16_LE -c 2 -r 44100"):
        sample("stdout=true", "stream=true")
