"""Sampling from a finished run: files, seeds, prompts, honest numbers, errors. The streams are tested in unit tests."""

import json
import math
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import stereo_sashimi
from stereo_sashimi.audio.io import write_pcm
from stereo_sashimi.audio.quantize import encode
from stereo_sashimi.commands.generate import generate_command as generate

FRAMES = 40
SECONDS = FRAMES / 44100


@pytest.fixture(scope="module")
def categorical_run(launch, stereo_folder, tmp_path_factory) -> Path:
    """A finished stereo run with an 8-bit categorical head."""
    run = tmp_path_factory.mktemp("categorical")
    launch(run, stereo_folder, "dataset.bits=8", "decoder=categorical", "encoder.init=normal", "logger=none")
    return run


@pytest.fixture(autouse=True)
def _cheap_pictures(request, monkeypatch):
    """The pictures have tests of their own; only one test here looks at one, and they are the slow part."""
    if request.node.name != "test_wav_png_and_json":
        monkeypatch.setattr(generate, "sheet", lambda pcm, rate, title: title)
        monkeypatch.setattr(generate, "save_png", lambda figure, path: path.write_text(figure))


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


def test_a_seed_is_a_recording(sample, tmp_path):
    first, again, other = (
        sample(f"seed={seed}", f"out={tmp_path / name}")[0] for seed, name in ((3, "a"), (3, "b"), (4, "c"))
    )
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
    assert [path.name for path in sample("name=take", "n_samples=2")] == ["take-seed0.wav", "take-seed1.wav"]


def test_the_newest_finished_run_is_found(sample, dml_run, tmp_path):
    runs = tmp_path / "runs"
    for age, (name, status) in enumerate((("c-old", "finished"), ("b-new", "finished"), ("a-newest", "running"))):
        shutil.copytree(dml_run, runs / name)
        (runs / name / "run.json").write_text(json.dumps({"status": status}))
        os.utime(runs / name / "run.json", (1000 + age, 1000 + age))
    (wav,) = sample(f"paths.runs={runs}", checkpoint=None)
    assert settings_of(wav)["checkpoint"] == str(runs / "b-new" / "checkpoints" / "best.ckpt")
    (runs / "b-new" / "checkpoints" / "best.ckpt").unlink()
    (wav,) = sample(f"paths.runs={runs}", checkpoint=None)
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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("temperature=warm",), r"temperature must be a number; got 'warm'"),
        (("seconds=inf",), r"seconds must give at least one frame"),
        (("temperature=-0.1",), r"temperature must be at least 0; got -0\.1"),
        (("top_p=0",), r"top_p must lie in \(0, 1\]; got 0"),
        (("top_k=0",), r"top_k must be an integer of at least 1; got 0"),
        (("top_p=0.9",), r"neither top_k nor top_p.*decoder=categorical"),
        (("top_k=5",), r"neither top_k nor top_p.*decoder=categorical"),
        (("seconds=0",), r"seconds must give at least one frame at 44100 Hz; got 0"),
        (("n_samples=0",), r"n_samples must be an integer of at least 1; got 0"),
        (("n_samples=1.5",), r"n_samples must be an integer of at least 1; got 1\.5"),
        (("seed=abc",), r"seed must be an integer of at least 0; got 'abc'"),
        (("name=a/b",), r"name must be a file name without folders; got 'a/b'"),
        (("device=gpu",), r"device must be auto, cpu or cuda; got 'gpu'"),
        (("prompt_seconds=1",), r"prompt_seconds needs a prompt"),
        (("prompt={prompt}", "prompt_seconds=0.01"), r"prompt_seconds=0\.01 is longer than .*prompt\.wav"),
        (("prompt={prompt}", "prompt_seconds=0"), r"prompt_seconds must give at least one frame"),
        (("prompt={mono}",), r"test\.wav has 1 channel, the model 2"),
        (("prompt={slow}",), r"slow\.wav has 8000 Hz, the model 44100 Hz.*prompt_resample=true"),
        (("prompt={slow}", "prompt_resample=true", "prompt_seconds=1"), r"prompt_seconds=1 is longer than .*slow\.wav"),
        (("prompt={mono}", "prompt_resample=true"), r"test\.wav has 1 channel, the model 2\..*ffmpeg"),
        (("prompt_resample=true",), r"prompt_resample needs a prompt"),
        (("prompt_resample=maybe",), r"prompt_resample must be true or false; got 'maybe'"),
        (("mixture_temperature=-1",), r"mixture_temperature must be at least 0; got -1"),
        (("scale_temperature=wide",), r"scale_temperature must be a number; got 'wide'"),
        (("engine=fast",), r"engine must be one of auto, reference.*; got 'fast'"),
        (("format=mp3",), r"format must be one of wav, flac; got 'mp3'"),
        (
            ("format=flac", "stream=true"),
            r"stream=true writes WAV files; got format=flac\. Use format=wav",
        ),
        (("stream=1",), r"stream must be true or false; got 1"),
        (("seconds=null",), r"seconds=null goes on until Ctrl-C and needs stream=true"),
        (("seconds=30000",), r"seconds=30000 does not fit into a WAV file, .* 24348 s .*Use format=flac"),
        (("seconds=30000", "stream=true"), r"does not fit into a WAV file, .*Use stdout=true"),
        (("stdout=true",), r"stdout=true .*needs stream=true"),
        (("stdout=true", "stream=true", "n_samples=2"), r"stdout=true is for one sample; got n_samples=2"),
        (("prompt=absent.wav",), r"absent\.wav: there is no such file"),
        (("checkpoint=absent.ckpt",), r"There is no checkpoint absent\.ckpt.*checkpoint=runs/<run>"),
        (("checkpoint=null", "paths.runs={empty}"), r"no finished run under .*train\.py.*checkpoint=runs/<run>"),
        (("checkpoint={empty}",), r"holds no checkpoints/best\.ckpt or checkpoints/last\.ckpt"),
        (("+temprature=1",), r"Unknown key config\.temprature.*Did you mean config\.temperature"),
        (("backend.name=fast",), r"backend must be one of auto, .*; got 'fast'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_errors_name_what_to_change(sample, prompt, mono_folder, tmp_path, options, message):
    write_pcm(tmp_path / "slow.wav", np.zeros((9, 2), np.int16), 8000)
    (tmp_path / "empty").mkdir()
    places = {
        "prompt": prompt, "mono": mono_folder / "test" / "test.wav", "slow": tmp_path / "slow.wav",
        "empty": tmp_path / "empty",
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        sample(*(option.format(**places) for option in options))
    assert not (tmp_path / "out").exists()


def test_a_categorical_head_has_no_mixture(sample, categorical_run, tmp_path):
    with pytest.raises(ValueError, match="mixture_temperature and scale_temperature are for the DML head"):
        sample("mixture_temperature=0.5", checkpoint=categorical_run)
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_cuda_without_a_device(sample):
    with pytest.raises(ValueError, match=r"device=cuda needs a CUDA device .*device=auto or device=cpu"):
        sample("device=cuda")
