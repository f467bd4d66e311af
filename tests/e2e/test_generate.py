"""Sampling from a finished run: files, seeds, prompts, engines, streams, signals, honest numbers.

What is refused is in `test_bad_checkpoints.py`, the command as a process in `test_stream_command.py`.
"""

import json
import math
import os
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import stereo_sashimi
from stereo_sashimi.audio.io import write_pcm
from stereo_sashimi.audio.quantize import encode
from stereo_sashimi.commands.generate.generate_options import SamplingJob
from stereo_sashimi.spec import AudioSpec

FRAMES = 40
SECONDS = FRAMES / 44100


@pytest.fixture(scope="module")
def categorical_run(launch, stereo_folder, tmp_path_factory) -> Path:
    """A finished stereo run with an 8-bit categorical head."""
    run = tmp_path_factory.mktemp("categorical")
    launch(run, stereo_folder, "dataset.bits=8", "decoder=categorical", "encoder.init=normal", "logger=none")
    return run


@pytest.fixture(autouse=True)
def _pictures(request):
    if request.node.name != "test_wav_png_and_json":
        request.getfixturevalue("cheap_pictures")


def pcm_of(wav: Path) -> np.ndarray:
    return soundfile.read(wav, dtype="int16", always_2d=True)[0]


def settings_of(wav: Path) -> dict:
    return json.loads(wav.with_suffix(".json").read_text())


def bits_by_hand(checkpoint: Path, pcm: np.ndarray) -> np.ndarray:
    model = stereo_sashimi.load(checkpoint)
    codes = torch.from_numpy(encode(pcm, model.spec))[None]
    with torch.no_grad():
        return -model.log_prob(codes)[0].double().numpy() / math.log(2)


def test_wav_png_and_json(sample, dml_run, capsys):
    (wav,) = sample()
    info = soundfile.info(wav)
    assert (info.samplerate, info.channels, info.frames, info.subtype) == (44100, 2, FRAMES, "PCM_16")
    assert {path.name for path in wav.parent.iterdir()} == {f"sample-seed0{s}" for s in (".wav", ".png", ".json")}
    assert wav.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    settings = settings_of(wav)
    assert settings["checkpoint"] == str(dml_run / "checkpoints" / "best.ckpt")
    assert settings["frames"] == FRAMES
    assert settings["prompt_bits_per_sample"] is None
    assert settings["spec"]["n_channels"] == 2
    assert settings["audio"]["seconds"] == pytest.approx(SECONDS)
    out = capsys.readouterr().out
    assert "2 channels  44100 Hz  16 bit linear  decoder dml, autoregressive" in out
    assert f"  engine {settings['engine']}  device cpu" in out
    assert settings["file"] == wav.name
    assert settings["stopped"] is None
    assert settings["frames_per_s"] > 0
    assert settings["real_time_factor"] == pytest.approx(settings["frames_per_s"] / 44100)
    assert re.search(r"sample-seed0\.wav  0\.00 s  [\d.]+ bits/sample  [\d,]+ frames/s, [\d.e-]+ x real time\n", out)


def test_the_bits_are_those_of_the_written_file(sample, dml_run):
    (wav,) = sample()
    by_hand = bits_by_hand(dml_run / "checkpoints" / "best.ckpt", pcm_of(wav))
    bits = settings_of(wav)["bits_per_sample"]
    assert bits["pooled"] == pytest.approx(by_hand.mean(), rel=1e-4)
    assert bits["left"] == pytest.approx(by_hand[:, 0].mean(), rel=1e-4)
    assert bits["right"] == pytest.approx(by_hand[:, 1].mean(), rel=1e-4)


def test_a_seed_is_a_recording(sample, tmp_path, capsys):
    first, again, other = (
        sample(f"seed={seed}", "engine=reference", f"out={tmp_path / name}")[0]
        for seed, name in ((3, "a"), (3, "b"), (4, "c"))
    )
    assert settings_of(first)["engine"] == "reference"
    assert "  engine reference  device cpu" in capsys.readouterr().out
    assert first.read_bytes() == again.read_bytes()
    assert first.read_bytes() != other.read_bytes()


def test_a_batch_is_its_rows(sample, categorical_run, tmp_path):
    # 8 bit: at 16 the last bit of a float, which the size of a batch may change, can move a draw to the next code.
    batch = sample("n_samples=2", "seed=3", checkpoint=categorical_run)
    assert [path.name for path in batch] == ["sample-seed3.wav", "sample-seed4.wav"]
    for seed, wav in zip((3, 4), batch, strict=True):
        (single,) = sample(f"seed={seed}", f"out={tmp_path / 'single'}", checkpoint=categorical_run)
        assert np.array_equal(pcm_of(wav), pcm_of(single))


@pytest.mark.parametrize(("limit", "frames"), [((), 88), (("prompt_seconds=0.001",), 44)])
def test_a_prompt_is_continued(sample, dml_run, prompt, limit, frames):
    (wav,) = sample(f"prompt={prompt}", *limit)
    assert wav.name == "prompt-continued-seed0.wav"
    pcm = pcm_of(wav)
    assert len(pcm) == frames + FRAMES
    assert np.array_equal(pcm[:frames], pcm_of(prompt)[:frames])
    settings = settings_of(wav)
    assert settings["prompt_frames"] == frames
    assert wav.with_suffix(".png").read_text().endswith(f"bits/sample {frames}")
    by_hand = bits_by_hand(dml_run / "checkpoints" / "best.ckpt", pcm)
    assert settings["prompt_bits_per_sample"]["pooled"] == pytest.approx(by_hand[:frames].mean(), rel=1e-4)
    assert settings["bits_per_sample"]["right"] == pytest.approx(by_hand[frames:, 1].mean(), rel=1e-4)


def test_a_batch_continues_one_prompt(sample, prompt):
    first, second = sample(f"prompt={prompt}", "n_samples=2")
    assert np.array_equal(pcm_of(first)[:88], pcm_of(second)[:88])
    assert not np.array_equal(pcm_of(first)[88:], pcm_of(second)[88:])


def test_temperature_zero_needs_no_luck(sample):
    first, second = sample("temperature=0", "n_samples=2")
    assert first.read_bytes() == second.read_bytes()
    # The numbers stay the model's own.
    assert math.isfinite(settings_of(first)["bits_per_sample"]["pooled"])


def test_names_and_places(sample, dml_run, tmp_path):
    (wav,) = sample("name=take", "out=null")
    assert wav == dml_run.resolve() / "samples" / "take.wav"
    shutil.rmtree(wav.parent)
    assert [path.name for path in sample("name=take.WAV", "n_samples=2")] == ["take-seed0.wav", "take-seed1.wav"]


@pytest.mark.parametrize("options", [(), ("stream=true",)], ids=["whole", "stream"])
def test_nothing_is_replaced_unasked(sample, tmp_path, monkeypatch, options):
    (wav,) = sample(*options)
    left = {path.name: path.read_bytes() for path in wav.parent.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(SamplingJob, "blocks", lambda self: pytest.fail("drawn"))
        for name in left:
            for other in left.keys() - {name}:
                (wav.parent / other).unlink(missing_ok=True)
            (wav.parent / name).write_bytes(left[name])
            with pytest.raises(ValueError, match=rf"{name} is there already\. Give another seed=.*or overwrite=true"):
                sample(*options)
            assert [path.name for path in wav.parent.iterdir()] == [name]
    assert sample(*options, "overwrite=true", "seed=0") == [wav]
    assert wav.read_bytes() == left[wav.name]


def test_the_newest_finished_run_is_found(sample, dml_run, tmp_path):
    runs = tmp_path / "runs"
    for age, (name, status) in enumerate((("c-old", "finished"), ("b-new", "finished"), ("a-newest", "running"))):
        shutil.copytree(dml_run, runs / name)
        (runs / name / "run.json").write_text(json.dumps({"status": status}))
        os.utime(runs / name / "run.json", (1000 + age, 1000 + age))
    (wav,) = sample(f"paths.runs={runs}", checkpoint=None)
    assert settings_of(wav)["checkpoint"] == str(runs / "b-new" / "checkpoints" / "best.ckpt")
    (runs / "b-new" / "checkpoints" / "best.ckpt").unlink()
    (wav,) = sample(f"paths.runs={runs}", "overwrite=true", checkpoint=None)
    assert settings_of(wav)["checkpoint"] == str(runs / "b-new" / "checkpoints" / "last.ckpt")


def test_categorical_runs_take_top_k_and_top_p(sample, categorical_run):
    run = categorical_run
    greedy, top_1 = sample("temperature=0", checkpoint=run)[0], sample("top_k=1", "name=top", checkpoint=run)[0]
    assert greedy.read_bytes() == top_1.read_bytes()
    (wav,) = sample("top_p=0.5", checkpoint=run)
    assert settings_of(wav)["top_p"] == 0.5
    # 8-bit codes are the top bytes of PCM.
    assert not (pcm_of(wav) & 0xFF).any()


def test_mono_prompts_and_models(sample, launch, mono_folder, tmp_path):
    run = tmp_path / "run"
    launch(run, mono_folder, "dataset.is_stereo=false", "logger=none")
    (wav,) = sample(f"prompt={mono_folder / 'test' / 'test.wav'}", "prompt_seconds=0.001", checkpoint=run)
    assert pcm_of(wav).shape == (44 + FRAMES, 1)
    assert set(settings_of(wav)["bits_per_sample"]) == {"pooled", "mono"}


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


def test_a_prompt_of_another_rate_is_converted_when_asked(sample, prompt, tmp_path, capsys):
    time = np.arange(960) / 48000
    pcm = np.rint(9000 * np.sin(2 * np.pi * np.stack([300 * time, 500 * time], axis=1))).astype(np.int16)
    write_pcm(tmp_path / "fast.wav", pcm, 48000)
    for limit, frames in (((), 882), (("prompt_seconds=0.01",), 441)):
        (wav,) = sample(f"prompt={tmp_path / 'fast.wav'}", "prompt_resample=true", "overwrite=true", *limit)
        assert f"{tmp_path}/fast.wav resampled from 48000 Hz to 44100 Hz" in capsys.readouterr().out
        assert settings_of(wav)["prompt_resampled_from"] == 48000
        assert settings_of(wav)["prompt_frames"] == frames
        expected = stereo_sashimi.read(tmp_path / "fast.wav", AudioSpec(44100, 2, 16), frames, resample=True)
        assert np.array_equal(pcm_of(wav)[:frames], expected)
    # One of the model's rate is left as it is.
    (wav,) = sample(f"prompt={prompt}", "prompt_resample=true")
    assert settings_of(wav)["prompt_resampled_from"] is None
    assert np.array_equal(pcm_of(wav)[:88], pcm_of(prompt))


def test_a_terminal_gets_no_samples(sample, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    with pytest.raises(ValueError, match=r"standard output is a terminal\..*\n.*\| aplay -f S16_LE -c 2 -r 44100"):
        sample("stdout=true", "stream=true")


def test_a_categorical_head_has_no_mixture(sample, categorical_run, tmp_path):
    with pytest.raises(ValueError, match="mixture_temperature and scale_temperature are for the DML head"):
        sample("mixture_temperature=0.5", checkpoint=categorical_run)
    assert not (tmp_path / "out").exists()
