"""Evaluations of a finished run: the numbers, files and fingerprints, shards, interruptions, errors."""

import csv
import json
import math
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest
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


def test_an_interruption_changes_no_bit(score, whole, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(stream_module, "PREFILL_FRAMES", 64)
    pieces, add = [], evaluate.Meter.add

    def interrupted(self, frames):
        pieces.append(frames)
        if len(pieces) == 3:
            raise Stopped(15)
        add(self, frames)

    with monkeypatch.context() as patch:
        patch.setattr(evaluate.Meter, "add", interrupted)
        with pytest.raises(SystemExit) as stopped:
            score(tmp_path, *PASSES)
    assert stopped.value.code == 128 + 15
    assert "The same command goes on" in capsys.readouterr().err
    (partial,) = (tmp_path / "tracks").iterdir()
    state = torch.load(partial, weights_only=True)["current"]["state"]
    assert (state["start"], state["offset"]) == (0, 192)
    assert score(tmp_path, *PASSES) == whole[1]
    assert not partial.exists()


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


def test_reports_and_generated_audio(score, audio, monkeypatch, tmp_path):
    calls = []
    page, distances = types.ModuleType("page"), types.ModuleType("distances")
    page.write_page = lambda evaluation, files, path: calls.append((evaluation["generated"], files, path))
    distances.compare = lambda generated, reference: {"generated": len(generated), "reference": len(reference)}
    monkeypatch.setitem(sys.modules, "stereo_sashimi.commands.evaluate.page", page)
    monkeypatch.setitem(sys.modules, "stereo_sashimi.metrics.distances", distances)
    found = score(tmp_path / "out", "report=true", f"generated={audio / 'a'}", "baselines=false")
    assert found["generated"] == {"generated": 1, "reference": 3}
    files = {name: audio / name for name in LENGTHS}
    assert calls == [(found["generated"], files, tmp_path / "out" / "evaluation.html")]


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
