"""Evaluations of a finished run: the numbers, files and fingerprints, shards, interruptions, errors."""

import csv
import json
import math
import os
import re
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import stereo_sashimi
from stereo_sashimi.audio.io import read_pcm, write_pcm
from stereo_sashimi.audio.quantize import encode
from stereo_sashimi.commands.evaluate import evaluate_command as evaluate
from stereo_sashimi.commands.evaluate.track_scorer import TrackScorer
from stereo_sashimi.generation import stream as stream_module
from stereo_sashimi.signals import Stopped

LENGTHS = {"a/one.wav": 300, "a_one.wav": 190, "two.flac": 411}


PASSES = ("baselines=false", "segment_frames=[null,100]")


@pytest.fixture(scope="module")
def audio(tmp_path_factory) -> Path:
    folder, rng = tmp_path_factory.mktemp("audio"), np.random.default_rng(3)
    for name, frames in LENGTHS.items():
        (folder / name).parent.mkdir(exist_ok=True)
        write_pcm(folder / name, rng.integers(-3000, 3000, (frames, 2)).astype(np.int16), 44100)
    return folder


@pytest.fixture(scope="module")
def score(composed, dml_run, audio):
    """`score(out, *overrides)`: evaluate the run on the CPU; returns evaluation.json, None while tracks are missing."""

    def go(out: Path, *overrides: str):
        fixed = (f"checkpoint={dml_run}", f"data={audio}", f"out={out}", "device=cpu", "report=false")
        path = evaluate.run(composed("evaluate", *fixed, *overrides))
        return None if path is None else json.loads(path.read_text())

    return go


@pytest.fixture(scope="module")
def whole(score, tmp_path_factory) -> tuple[Path, dict]:
    """The folder and the JSON of a finished evaluation with two contexts."""
    out = tmp_path_factory.mktemp("evaluated") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream_module, "PREFILL_FRAMES", 64)
        return out, score(out, *PASSES)


def test_the_bits_are_those_of_the_model(score, dml_run, audio, tmp_path, capsys):
    found = score(tmp_path / "out", "segment_frames=[null,64]")
    assert found["contexts"] == ["carried", "64"]
    assert [track["file"] for track in found["tracks"]] == sorted(LENGTHS)
    model, nats = stereo_sashimi.load(dml_run), {"carried": 0.0, "64": 0.0}
    for track in found["tracks"]:
        codes = torch.from_numpy(encode(read_pcm(audio / track["file"])[0], model.spec))[None]
        with torch.no_grad():
            nats["carried"] -= float(model.log_prob(codes).double().sum())
            nats["64"] -= sum(float(model.log_prob(part).double().sum()) for part in codes.split(64, dim=1))
        assert np.sum(track["bits_each_second"]) * math.log(2) == pytest.approx(
            sum(track["contexts"]["carried"]["channel_nats"])
        )
    samples = 2 * sum(LENGTHS.values())
    for name, total in nats.items():
        pooled = found["pooled"]["contexts"][name]
        assert pooled["bits_per_sample"] == pytest.approx(total / math.log(2) / samples, rel=1e-4)
        assert list(pooled["channels"]) == ["left", "right | left"]
    assert found["pooled"]["frames"] * 2 == samples
    assert {"flac -8", "flac -8, no mid/side"} <= set(found["pooled"]["lossless"])
    rows = list(csv.reader((tmp_path / "out" / "evaluation.csv").read_text().splitlines()))
    assert [row[0] for row in rows] == ["file", *sorted(LENGTHS), "pooled"]
    assert float(rows[-1][2]) == found["pooled"]["contexts"]["carried"]["bits_per_sample"]
    out = capsys.readouterr().out
    assert "two.flac  0.01 s  " in out
    assert "pooled over 3 tracks, 901 frames" in out


def test_what_is_done_is_not_done_again(score, whole, audio, tmp_path, capsys, monkeypatch):
    (done, first), out, data = whole, tmp_path / "out", tmp_path / "audio"
    shutil.copytree(done, out)
    shutil.copytree(audio, data)
    calls, work = [], TrackScorer.score
    monkeypatch.setattr(TrackScorer, "score", lambda *args: calls.append(args[1].file) or work(*args))
    assert score(out, *PASSES, f"data={data}") == first
    assert "3 of 3 tracks are done already" in capsys.readouterr().out
    write_pcm(data / "two.flac", np.ones((50, 2), np.int16), 44100)
    score(out, *PASSES, f"data={data}")
    assert calls == ["two.flac"]
    score(out, "baselines=false", "segment_frames=64", f"data={data}")
    score(out, "baselines=false", "segment_frames=64", f"data={data}", "overwrite=true")
    assert len(calls) == 7


def test_shards_make_the_same_totals(score, whole, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(stream_module, "PREFILL_FRAMES", 64)
    assert score(tmp_path, *PASSES, "shard=2/2") is None
    assert "2 of 3 tracks are missing" in capsys.readouterr().out
    assert score(tmp_path, *PASSES, "shard=1/2") == whole[1]


def interrupt(score, out: Path, piece: int) -> Path:
    """Interrupt an evaluation at a piece; the file of the track that is half done."""
    pieces, add = [], evaluate.Meter.add

    def interrupted(self, frames):
        pieces.append(frames)
        if len(pieces) == piece:
            raise Stopped(15)
        add(self, frames)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate.Meter, "add", interrupted)
        with pytest.raises(SystemExit) as stopped:
            score(out, *PASSES)
    assert stopped.value.code == 128 + 15
    (partial,) = (out / "tracks").iterdir()
    return partial


@pytest.mark.parametrize(("piece", "position"), [(3, (0, 192)), (5, (300, 0))], ids=["inside", "end of a pass"])
def test_an_interruption_changes_no_bit(score, whole, tmp_path, monkeypatch, capsys, piece, position):
    monkeypatch.setattr(stream_module, "PREFILL_FRAMES", 64)
    partial = interrupt(score, tmp_path, piece)
    assert "The same command goes on" in capsys.readouterr().err
    state = torch.load(partial, weights_only=True)["current"]["state"]
    assert (state["start"], state["offset"]) == position
    assert score(tmp_path, *PASSES) == whole[1]
    assert not partial.exists()


NESTED = "[" * 100_000 + "]" * 100_000
# What becomes of the text of a finished track.
RESULTS = {
    "cut": (lambda text: text[:40], r"is damaged: .*column"),
    "nested too deep": (lambda text: NESTED, "is damaged: it is nested too deep"),
    "a list": (lambda text: "[]", "is damaged: its fields are not those"),
    "NaN": (lambda text: re.sub(r"(nats\": \[\s*)[\d.]+", r"\1NaN", text), r"channel_nats\[0\] is NaN or infinite"),
    "wrong type": (lambda text: text.replace('"frames": 300', '"frames": "x"'), r"frames must be int; got str"),
    "frames 0": (lambda text: text.replace('"frames": 300', '"frames": 0'), "that of another recording"),
    "a field less": (lambda text: text.replace('"frames"', '"farmes"'), "result must have the fields file, "),
    "a second less": (
        lambda text: re.sub(r'(?s)"bits_each_second": .*?\],\s*"l', '"bits_each_second": [], "l', text),
        "bits_each_second must have 1 entries; got 0",
    ),
}
PARTIALS = {
    "no archive": (None, "it cannot be read"),
    "no current": (lambda content: content | {"current": None}, "is damaged: its fields are not those"),
    "unknown pass": (lambda content: content | {"current": {"name": "8"}}, "'8' is not in list"),
    "done wrong": (
        lambda content: content | {"done": {"carried": {}}},
        "done.carried must have the fields channel_nats",
    ),
    "done early": (lambda content: content | {"done": {}}, "done must have the fields carried"),
    "state list": (lambda content: content | {"current": {"name": "100", "state": []}}, "no segment begins at"),
    **{
        f"state {key}": (
            lambda content, key=key, value=value: (
                content | {"current": {"name": "100", "state": content["current"]["state"] | {key: value}}}
            ),
            message,
        )
        for key, value, message in (
            ("start", 50, "no segment begins at"),
            ("offset", 100, "its offset lies outside"),
            ("phase", 3, "its phase is not that"),
            ("layers", [], r"state\.layers must have \d+ entries; got 0"),
            ("hidden", torch.full((1, 1, 8), math.nan), "state.hidden is NaN or infinite"),
            ("nats", torch.zeros(3), r"state\.nats must be torch.float64 \[2\]; got torch.float32 \[3\]"),
        )
    },
}


def test_damaged_files_are_named(score, whole, tmp_path, monkeypatch):
    remedy = r".*\. Delete it, or set overwrite=true: then its track is scored again\."
    done = tmp_path / "done"
    shutil.copytree(whole[0], done)
    (path,) = (path for path in (done / "tracks").iterdir() if '"a/one.wav"' in path.read_text())
    text = path.read_text()
    for name, (damage, message) in RESULTS.items():
        path.write_text(damage(text))
        assert path.read_text() != text, name
        with pytest.raises(ValueError, match=f"(?s){re.escape(path.name)} is damaged: .*") as error:
            score(done, *PASSES)
        assert re.search(message, str(error.value)), (name, str(error.value))
        assert re.search(remedy, str(error.value)), name
    monkeypatch.setattr(stream_module, "PREFILL_FRAMES", 64)
    partial = interrupt(score, tmp_path / "half", 8)
    content = torch.load(partial, weights_only=True)
    assert (content["current"]["name"], content["current"]["state"]["offset"]) == ("100", 64)
    for name, (damage, message) in PARTIALS.items():
        if damage is None:
            partial.write_bytes(b"no archive")
        else:
            torch.save(damage(content), partial)
        with pytest.raises(ValueError, match=f"{re.escape(partial.name)} is damaged: ") as error:
            score(tmp_path / "half", *PASSES)
        assert re.search(message + remedy, str(error.value)), (name, str(error.value))
    assert score(tmp_path / "half", *PASSES, "overwrite=true") == whole[1]


def test_models_with_independent_channels(score, launch, stereo_folder, tmp_path):
    launch(tmp_path / "apart", stereo_folder, "decoder.coupling=independent", "logger=none")
    apart = f"checkpoint_independent={tmp_path / 'apart'}"
    found = score(tmp_path / "out", apart, "baselines=false")
    alone = score(tmp_path / "other", f"checkpoint={tmp_path / 'apart'}", "baselines=false")
    bits = alone["pooled"]["contexts"]
    gain = bits["carried"]["bits_per_sample"] - found["pooled"]["contexts"]["carried"]["bits_per_sample"]
    assert found["pooled"]["cross_channel_gain"]["bits_per_sample"] == pytest.approx(gain)
    assert list(bits["carried"]["channels"]) == ["left", "right"]


def test_other_codes_are_named(score, launch, stereo_folder, tmp_path, capsys):
    eight = ("dataset.bits=8", "decoder=categorical", "encoder.init=normal", "logger=none")
    launch(tmp_path / "top", stereo_folder, *eight)
    assert score(tmp_path / "top-out", f"checkpoint={tmp_path / 'top'}")["pooled"]["lossless"]
    assert "top byte" in capsys.readouterr().out
    launch(tmp_path / "mu", stereo_folder, *eight, "dataset.quantization=mu-law")
    assert score(tmp_path / "mu-out", f"checkpoint={tmp_path / 'mu'}")["pooled"]["lossless"] == {}
    out = capsys.readouterr().out
    assert "codes (mu-law), not of PCM" in out
    assert "baselines are left out: " in out


def test_a_file_of_another_format_and_a_name_that_is_not_utf8(score, audio, tmp_path, capsys):
    name = os.fsdecode(b"x\xff.wav")
    # libsndfile itself is not given such a name.
    soundfile.write(tmp_path / "x.wav", np.full(8000, 0.1), 48000, subtype="PCM_24")
    (tmp_path / "x.wav").rename(tmp_path / name)
    conversions = ("resample=true", "requantize=true", "upmix=true", "baselines=false")
    found = score(tmp_path / "out", *conversions, f"data='{tmp_path / name}'")
    (track,) = found["tracks"]
    assert (track["file"], track["frames"]) == (f"{tmp_path}/x\\xff.wav", 7350)
    out = capsys.readouterr().out
    assert found["converted"]["rounded to 16 bits"] == 1
    for what in ("resampled to 44100 Hz", "rounded to 16 bits", "copied to both channels"):
        assert f"1 of 1 files {what}\n" in out
    assert "x\\xff.wav  0.17 s" in out
    assert "x\\xff.wav,7350" in (tmp_path / "out" / "evaluation.csv").read_text()


def test_reports_and_generated_audio(score, audio, monkeypatch, tmp_path):
    calls = []
    page, distances = types.ModuleType("page"), types.ModuleType("distances")
    page.write_page = lambda evaluation, sources, path: calls.append((evaluation["generated"], sources, path))
    distances.compare = lambda generated, reference: {"generated": len(generated), "reference": len(reference)}
    monkeypatch.setitem(sys.modules, "stereo_sashimi.commands.evaluate.page", page)
    monkeypatch.setitem(sys.modules, "stereo_sashimi.metrics.distances", distances)
    found = score(tmp_path / "out", "report=true", f"generated={audio / 'a'}", "baselines=false")
    assert found["generated"] == {"generated": 1, "reference": 3}
    ((generated, sources, path),) = calls
    assert {name: source.path for name, source in sources.items()} == {name: audio / name for name in LENGTHS}
    assert (generated, path) == (found["generated"], tmp_path / "out" / "evaluation.html")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("generated={empty}",), r"generated=.* holds no audio files"),
        (("checkpoint_independent={run}",), r"decoder\.coupling=autoregressive.*coupling=independent"),
        (("+segment=1",), r"Unknown key segment"),
        (("report=maybe",), r"report must be true or false; got 'maybe'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_errors_come_before_anything_is_written(score, dml_run, tmp_path, options, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=message):
        score(tmp_path / "out", *(option.format(run=dml_run, empty=tmp_path / "empty") for option in options))
    assert not (tmp_path / "out").exists()
