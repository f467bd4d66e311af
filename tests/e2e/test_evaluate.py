"""Evaluations of a finished run: the numbers, files and fingerprints, shards, processes, interruptions, errors."""

import csv
import json
import math
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
from stereo_sashimi.commands.evaluate import pool as evaluate_pool
from stereo_sashimi.commands.evaluate import tracks as evaluate_tracks
from stereo_sashimi.commands.shared.signals import Stopped
from stereo_sashimi.generation import stream as stream_module

LENGTHS = {"a/one.wav": 300, "a_one.wav": 190, "two.flac": 411}


@pytest.fixture
def audio(tmp_path) -> Path:
    rng = np.random.default_rng(3)
    for name, frames in LENGTHS.items():
        (tmp_path / "audio" / name).parent.mkdir(parents=True, exist_ok=True)
        write_pcm(tmp_path / "audio" / name, rng.integers(-3000, 3000, (frames, 2)).astype(np.int16), 44100)
    return tmp_path / "audio"


@pytest.fixture
def score(composed, dml_run, audio, tmp_path):
    """`score(*overrides)`: evaluate the run on the CPU; returns evaluation.json, or None while tracks are missing."""

    def go(*overrides: str, out: Path = tmp_path / "out"):
        fixed = (f"checkpoint={dml_run}", f"data={audio}", f"out={out}", "device=cpu", "report=false")
        path = evaluate.run(composed("evaluate", *fixed, *overrides))
        return None if path is None else json.loads(path.read_text())

    return go


def test_the_bits_are_those_of_the_model(score, dml_run, audio, tmp_path, capsys):
    found = score("segment_frames=[null,64]")
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


def test_what_is_done_is_not_done_again(score, audio, capsys, monkeypatch):
    first = score("baselines=false")
    calls, work = [], evaluate_tracks.evaluate_track
    monkeypatch.setattr(evaluate_pool, "evaluate_track", lambda *args: calls.append(args[1].file) or work(*args))
    assert score("baselines=false") == first
    assert "3 of 3 tracks are done already" in capsys.readouterr().out
    write_pcm(audio / "two.flac", np.ones((50, 2), np.int16), 44100)
    score("baselines=false")
    assert calls == ["two.flac"]
    score("baselines=false", "segment_frames=64")
    score("baselines=false", "segment_frames=64", "overwrite=true")
    assert len(calls) == 7


def test_shards_make_the_same_totals(score, tmp_path, capsys):
    whole = score("baselines=false")
    assert score("baselines=false", "shard=2/2", out=tmp_path / "shards") is None
    assert "2 of 3 tracks are missing" in capsys.readouterr().out
    assert score("baselines=false", "shard=1/2", out=tmp_path / "shards") == whole


@pytest.mark.slow
def test_processes_make_the_same_totals(score, tmp_path):
    assert score("processes=2") == score(out=tmp_path / "alone")


@pytest.mark.parametrize("number", [2, 15])
def test_an_interruption_changes_no_bit(score, tmp_path, monkeypatch, capsys, number):
    monkeypatch.setattr(stream_module, "PREFILL_FRAMES", 64)
    options = ("baselines=false", "segment_frames=[null,100]")
    whole, pieces, add = score(*options, out=tmp_path / "whole"), [], evaluate_pool.Meter.add

    def interrupted(self, frames):
        pieces.append(frames)
        if len(pieces) == 3:
            raise Stopped(number)
        add(self, frames)

    with monkeypatch.context() as patch:
        patch.setattr(evaluate_pool.Meter, "add", interrupted)
        with pytest.raises(SystemExit) as stopped:
            score(*options)
    assert stopped.value.code == 128 + number
    assert "The same command goes on" in capsys.readouterr().err
    (partial,) = (tmp_path / "out" / "tracks").iterdir()
    state = torch.load(partial, weights_only=True)["current"]["state"]
    assert (state["start"], state["offset"]) == (0, 192)
    assert score(*options) == whole
    assert not partial.exists()


def test_models_with_independent_channels(score, launch, stereo_folder, tmp_path):
    launch(tmp_path / "apart", stereo_folder, "decoder.coupling=independent", "logger=none")
    apart = f"checkpoint_independent={tmp_path / 'apart'}"
    found = score(apart, "baselines=false")
    bits = score(f"checkpoint={tmp_path / 'apart'}", "baselines=false", out=tmp_path / "other")["pooled"]["contexts"]
    gain = bits["carried"]["bits_per_sample"] - found["pooled"]["contexts"]["carried"]["bits_per_sample"]
    assert found["pooled"]["cross_channel_gain"]["bits_per_sample"] == pytest.approx(gain)
    assert list(bits["carried"]["channels"]) == ["left", "right"]


def test_other_codes_are_named(score, launch, stereo_folder, tmp_path, capsys):
    eight = ("dataset.bits=8", "decoder=categorical", "encoder.init=normal", "logger=none")
    launch(tmp_path / "top", stereo_folder, *eight)
    assert score(f"checkpoint={tmp_path / 'top'}")["pooled"]["lossless"]
    assert "top byte" in capsys.readouterr().out
    launch(tmp_path / "mu", stereo_folder, *eight, "dataset.quantization=mu-law")
    assert score(f"checkpoint={tmp_path / 'mu'}", out=tmp_path / "mu-out")["pooled"]["lossless"] == {}
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
    found = score("report=true", f"generated={audio / 'a'}", "baselines=false")
    assert found["generated"] == {"generated": 1, "reference": 3}
    files = {name: audio / name for name in LENGTHS}
    assert calls == [(found["generated"], files, tmp_path / "out" / "evaluation.html")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("segment_frames=0",), r"segment_frames must be an integer of at least 1.*; got 0"),
        (("segment_frames=[8,8]",), r"segment_frames must hold .* each once"),
        (("shard=5/4",), r"shard must be a part of all, from 1/4 to 4/4.*; got '5/4'"),
        (("shard=0/4",), r"shard must be"),
        (("processes=0",), r"processes must be at least 1; got 0"),
        (("max_seconds=0",), r"max_seconds must give at least one frame"),
        (("data={empty}",), r"holds no audio files"),
        (("data=absent",), r"There is no folder absent"),
        (("data=[]",), r"data is an empty list"),
        (("data=[{mono},{mono}]",), r"twice"),
        (("data=[{mono}]",), r"mono\.wav has 1 channel, the model 2"),
        (("data=[{slow}]",), r"slow\.wav has 8000 Hz, the model 44100 Hz\. Resample"),
        (("data=[{mono},{slow},{nothing}]",), r"3 of 3 files cannot be evaluated:\n.*\n.*\n.*"),
        (("generated={empty}",), r"generated=.* holds no audio files"),
        (("checkpoint_independent={run}",), r"decoder\.coupling=autoregressive.*coupling=independent"),
        (("+segment=1",), r"Unknown key config\.segment"),
        (("report=maybe",), r"report must be true or false; got 'maybe'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_errors_name_what_to_change(score, dml_run, tmp_path, options, message):
    write_pcm(tmp_path / "slow.wav", np.zeros((9, 2), np.int16), 8000)
    write_pcm(tmp_path / "mono.wav", np.zeros((9, 1), np.int16), 44100)
    write_pcm(tmp_path / "nothing.wav", np.zeros((0, 2), np.int16), 44100)
    (tmp_path / "empty").mkdir()
    places = {name: tmp_path / f"{name}.wav" for name in ("slow", "mono", "nothing")}
    places |= {"empty": tmp_path / "empty", "run": dml_run}
    with pytest.raises(ValueError, match=message):
        score(*(option.format(**places) for option in options))
    assert not (tmp_path / "out").exists()
