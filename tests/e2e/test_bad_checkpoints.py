"""Bad checkpoints, prompts and options of sampling and resuming: one message that says what to do, nothing lost."""

import io
import re
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import bad_folders as bad
import pytest
import soundfile
import torch
from running import last_of

from stereo_sashimi.audio.io import write_pcm

no_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")

Content = dict[str, Any]
TABLE = "model.embedding.tables.0.weight"


def damaged(**entries: bytes) -> Callable[[bytes], bytes]:
    """A zip archive with these entries instead of a checkpoint."""

    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return lambda whole: file.getvalue()


def edited(place: str, change: Callable[[Content], object]) -> Callable[[Content], object]:
    def make(content: Content) -> Content:
        change(content["hyper_parameters"]["model"] if place == "model" else content[place])
        return content

    return make


# A checkpoint whose model description, or whose weights, were edited.
described, weighed = partial(edited, "model"), partial(edited, "state_dict")


def of_the_original(content: Content) -> Content:
    weights = {"encoder.0.weight": torch.zeros(256, 64), "decoder.0.output_transform.bias": torch.zeros(256)}
    settings = {"model": {"_name_": "sashimi"}, "dataset": {"_name_": "qautoaudio"}}
    return {"state_dict": weights, "hyper_parameters": settings, "pytorch-lightning_version": "1.5.10"}


# Bytes of a file, made from those of a good checkpoint.
FILES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda whole: b"", r"is truncated or not a checkpoint"),
    "half": (lambda whole: whole[: len(whole) // 2], r"is truncated or not a checkpoint"),
    "a zip of something else": (damaged(**{"notes/a.txt": b"x"}), r"is damaged or not a checkpoint"),
    "a zip without a folder": (damaged(**{"a.txt": b"x"}), r"is damaged or not a checkpoint"),
}
# Content of a checkpoint, edited.
CONTENTS: dict[str, tuple[Callable[[Content], object], str]] = {
    "pickled object": (lambda content: torch.nn.Linear(1, 1), r"needs pickled code and is refused.*Linear"),
    "state dict": (lambda content: content["state_dict"], r"not a stereo-sashimi checkpoint.*load_reference"),
    "of the original": (of_the_original, r"not a stereo-sashimi checkpoint.*load_lightning reads its Lightning"),
    "extra field": (described(lambda m: m["model"].update(n_layer=3)), r"Unknown key model\.n_layer\. Did you mean"),
    "wrong type": (described(lambda m: m["model"].update(n_layers="1")), r"n_layers must be an integer; got '1'"),
    "missing field": (described(lambda m: m["spec"].pop("bits")), r"spec lacks the field 'bits'"),
    "other bits": (described(lambda m: m["spec"].update(bits=12)), r"bits must be 8, 16 or 24; got 12"),
    "weight missing": (weighed(lambda w: w.pop(TABLE)), r"disagree: embedding\.tables\.0\.weight is missing"),
    "broken down": (weighed(lambda w: w[TABLE].fill_(torch.nan)), r"tables\.0\.weight holds NaN.*earlier checkpoint"),
}


@pytest.fixture
def resume(dml_run, stereo_folder, small, tmp_path, refusal) -> Callable[..., str]:
    """`resume(checkpoint, *overrides)`: what training says when it cannot go on from there."""
    experiment = ("experiment=audio/sashimi-sample", "scheduler.total_steps=3", "scheduler.warmup_steps=1")
    places = ("logger=none", f"dataset.path={stereo_folder}", f"paths.run={tmp_path / 'run'}")

    def go(checkpoint: Path, *overrides: str) -> str:
        error = refusal("train", *small, *experiment, *places, f'checkpoint="{checkpoint}"', *overrides)
        assert not (tmp_path / "run").exists(), "no half run"
        return error

    return go


@pytest.fixture
def generate(tmp_path, refusal) -> Callable[..., str]:
    """`generate(checkpoint, *overrides)`: what sampling says when it cannot begin."""

    def go(checkpoint: Path, *overrides: str) -> str:
        options = ("seconds=0.001", "device=cpu", f"out={tmp_path / 'out'}")
        error = refusal("generate", *options, f'checkpoint="{checkpoint}"', *overrides)
        assert not list(tmp_path.glob("out/*"))
        return error

    return go


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FILES, *CONTENTS])
def test_checkpoints_that_cannot_be_read(generate, resume, dml_run, tmp_path, name):
    path, good = tmp_path / "given.ckpt", last_of(dml_run)
    make, message = (FILES | CONTENTS)[name]
    if name in FILES:
        path.write_bytes(make(good.read_bytes()))
    else:
        torch.save(make(torch.load(good, weights_only=True)), path)
    for error in (generate(path), resume(path)):
        assert re.search(rf"^CheckpointError: {re.escape(str(path))}.*{message}", error), error


@pytest.mark.parametrize("part", ["optimizer_states", "lr_schedulers", "loops"])
def test_weights_alone_cannot_be_resumed(resume, dml_run, tmp_path, part):
    content = torch.load(last_of(dml_run), weights_only=True)
    del content[part]
    torch.save(content, tmp_path / "given.ckpt")
    error = resume(tmp_path / "given.ckpt")
    assert re.search(rf"given\.ckpt has no {part}: it can be sampled from, but not resumed\. Give a last\.ckpt", error)


def prompt(folder: Path, frames: int = 200, channels: int = 2, rate: int = 44100, **options: str) -> Path:
    soundfile.write(folder / "prompt.wav", bad.noise(channels, frames), rate, **options)
    return folder / "prompt.wav"


PROMPTS: dict[str, tuple[Callable[[Path], object], tuple[str, ...], str]] = {
    "missing": (lambda folder: None, (), r"prompt\.wav: there is no such file"),
    "a folder": (lambda folder: (folder / "prompt.wav").mkdir(), (), r"prompt\.wav: not a file but"),
    "not audio": (lambda folder: (folder / "prompt.wav").write_bytes(b"la la la" * 9), (), r"not an audio file"),
    "another rate": (lambda folder: prompt(folder, rate=22050), (),
                     r"22050 Hz, the model 44100 Hz.*prompt_resample=true"),
    "mono": (lambda folder: prompt(folder, channels=1), (), r"has 1 channels?, the model 2\. Give a file"),
    "mono, another rate": (
        lambda folder: prompt(folder, channels=1, rate=48000), ("prompt_resample=true",),
        r"has 1 channel, the model 2\..*ffmpeg -i in\.wav -ac 2 out\.wav",
    ),
    "six channels": (lambda folder: prompt(folder, channels=6), (), r"has 6 channels, the model 2\. Give a file"),
    "24 bit": (lambda folder: prompt(folder, subtype="PCM_24"), (), r"24-bit samples\. Convert it to 16 bits"),
    "no frames": (lambda folder: prompt(folder, frames=0), (), r"has no frames\. Give a file with audio"),
    "too short": (prompt, ("prompt_seconds=5",), r"prompt_seconds=5 is longer than .*prompt\.wav"),
    "too short, resampled": (
        lambda folder: prompt(folder, rate=8000), ("prompt_resample=true", "prompt_seconds=1"),
        r"prompt_seconds=1 is longer than .*prompt\.wav",
    ),
    "none of it": (prompt, ("prompt_seconds=0",), r"prompt_seconds must give at least one frame"),
}  # fmt: skip


@pytest.mark.parametrize("name", PROMPTS)
def test_prompts_that_cannot_be_continued(generate, dml_run, tmp_path, name):
    make, options, message = PROMPTS[name]
    make(tmp_path)
    error = generate(last_of(dml_run), f"prompt={tmp_path / 'prompt.wav'}", *options)
    assert re.search(message, error), error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("seconds=0", r"seconds must give at least one frame at 44100 Hz; got 0"),
        ("seconds=long", r"seconds must be a number; got 'long'"),
        ("seconds=nan", r"seconds must give at least one frame at 44100 Hz; got nan"),
        ("seconds=inf", r"seconds must give at least one frame"),
        ("seconds=null", r"seconds=null goes on until Ctrl-C and needs stream=true"),
        ("seconds=30000", r"seconds=30000 does not fit into a WAV file, .* 24348 s .*Use format=flac"),
        ("seconds=30000 stream=true", r"does not fit into a WAV file, .*Use stdout=true"),
        ("n_samples=0", r"n_samples must be an integer of at least 1; got 0"),
        ("n_samples=1.5", r"n_samples must be an integer of at least 1; got 1\.5"),
        ("temperature=-0.1", r"temperature must be at least 0; got -0\.1"),
        ("temperature=warm", r"temperature must be a number; got 'warm'"),
        ("mixture_temperature=-1", r"mixture_temperature must be at least 0; got -1"),
        ("scale_temperature=-1", r"scale_temperature must be at least 0; got -1"),
        ("scale_temperature=wide", r"scale_temperature must be a number; got 'wide'"),
        ("top_k=0", r"top_k must be an integer of at least 1; got 0"),
        ("top_k=5", r"DML head .*neither top_k nor top_p.*Use top_k=null.*decoder=categorical"),
        ("top_p=0", r"top_p must lie in \(0, 1\]; got 0"),
        ("top_p=2", r"top_p must lie in \(0, 1\]; got 2"),
        ("top_p=0.9", r"neither top_k nor top_p.*decoder=categorical"),
        ("seed=-1", r"seed must be an integer of at least 0; got -1"),
        ("seed=abc", r"seed must be an integer of at least 0; got 'abc'"),
        ("device=tpu", r"device must be auto, cpu or cuda; got 'tpu'"),
        ("out=long.wav", r"out is the folder for results; got 'long\.wav'\. Name the file: name=long\."),
        ("name=long.flac", r"name=long\.flac ends in another format than format=wav\. Set format=flac\."),
        ("name=a/b", r"name must be a file name without folders; got 'a/b'\. Use out="),
        ("prompt_seconds=1", r"prompt_seconds needs a prompt: prompt=file\.wav"),
        ("prompt_resample=true", r"prompt_resample needs a prompt: prompt=file\.wav"),
        ("prompt_resample=maybe", r"prompt_resample must be true or false; got 'maybe'"),
        ("backend.name=fast", r"backend must be one of auto, .*got 'fast'"),
        ("engine=fast", r"EngineError: engine must be one of auto, reference.*got 'fast'"),
        ("format=mp3", r"format must be one of wav, flac; got 'mp3'"),
        ("format=flac stream=true", r"stream=true writes WAV files; got format=flac\. Use format=wav"),
        ("stream=1", r"stream must be true or false; got 1"),
        ("stdout=true", r"stdout=true .*: it needs stream=true"),
        ("stdout=true stream=true n_samples=2", r"stdout=true is for one sample; got n_samples=2"),
        ("+temprature=1", r"Unknown key temprature.*Did you mean temperature"),
        pytest.param("device=cuda", r"device=cuda needs a CUDA device .*device=auto or device=cpu", marks=no_cuda),
        pytest.param("engine=cudagraph", r"EngineError: .*cudagraph.*CUDA", marks=no_cuda),
    ],
)
def test_options_of_sampling(generate, dml_run, options, message):
    error = generate(last_of(dml_run), *options.split())
    assert re.search(message, error), error


def test_an_output_folder_that_cannot_be(generate, dml_run, tmp_path):
    (tmp_path / "file").write_text("mine")
    error = generate(last_of(dml_run), f"out={tmp_path / 'file'}")
    assert re.search(r"out=.*file cannot be made: File exists\. Give a folder that can be written: out=", error)


def test_places_without_a_checkpoint(generate, refusal, tmp_path):
    assert re.search(r"There is no checkpoint .*absent\.ckpt\. Give a \.ckpt file", generate(tmp_path / "absent.ckpt"))
    (tmp_path / "folder").mkdir()
    assert re.search(
        r"folder holds no model: .*last\.ckpt, and no finished run .*Give a run folder", generate(tmp_path / "folder")
    )
    write_pcm(tmp_path / "music.wav", bad.noise(), 44100)
    assert re.search(r"music\.wav is truncated or not a checkpoint", generate(tmp_path / "music.wav"))
    error = refusal("generate", f"paths.runs={tmp_path / 'folder'}")
    assert re.search(r"There is no finished run under .*folder/\. Train one .*checkpoint=runs/", error)
