"""Scoring: a score is the model's own log-probability, a segment is a track, and an interruption changes no bit."""

import io
import math

import numpy as np
import pytest
import torch
from tiny_models import CASES, nats_of, noise, tiny

from stereo_sashimi.audio.quantize import encode
from stereo_sashimi.generation import stream as stream_module
from stereo_sashimi.generation.engines.engine import NonFiniteOutputError
from stereo_sashimi.generation.results import TrackScore
from stereo_sashimi.generation.sampling import generate
from stereo_sashimi.generation.scoring import Scoring, score
from stereo_sashimi.generation.stream import Stream
from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.spec import AudioSpec

FRAMES = 103


@pytest.fixture(params=CASES)
def model(request) -> LanguageModel:
    return tiny(request.param, pad_len=3)


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(stream_module, "PREFILL_FRAMES", 16)


@pytest.mark.parametrize("length", [7, 1000])
def test_a_score_is_the_log_probability_of_the_model(model, monkeypatch, length):
    monkeypatch.setattr(stream_module, "PREFILL_FRAMES", length)
    pcm = noise(model)
    nats = nats_of(model, encode(pcm, model.spec))
    result = score(model, pcm)
    assert result.channel_nats == pytest.approx(nats.sum(0), rel=1e-9)
    assert result.nats == pytest.approx(nats.sum(), rel=1e-9)
    assert (result.frames, result.samples) == (50, nats.size)
    assert result.bits_per_sample == pytest.approx(nats.mean() / math.log(2), rel=1e-9)
    by_channel = dict(zip(model.spec.channel_names, nats.mean(0) / math.log(2), strict=True))
    assert result.channel_bits_per_sample == pytest.approx(by_channel, rel=1e-9)
    assert result.bpb == pytest.approx(result.bits_per_sample, rel=1e-12)


@pytest.mark.parametrize(
    ("model", "segment_frames"),
    [
        ("mono", 3),
        ("stereo", 8),
        ("stereo-dml", 20),
        ("experts", 103),
        ("separate", 500),
        ("separate", 8),
        ("mono", 20),
    ],
    indirect=["model"],
)
def test_a_segment_is_a_track_of_its_own(model, segment_frames):
    pcm = noise(model, FRAMES)
    starts = range(0, FRAMES, segment_frames)
    alone = [score(model, pcm[start : start + segment_frames]).channel_nats for start in starts]
    assert score(model, pcm, segment_frames).channel_nats == pytest.approx(np.sum(alone, axis=0), rel=1e-9)


@pytest.mark.parametrize(
    ("normalize", "quantization", "segment_frames"),
    [
        ("none", "linear", None),
        ("none", "mu-law", 8),
        ("peak", "linear", 8),
        ("peak", "mu-law", None),
        ("minmax", "linear", None),
        ("minmax", "mu-law", 8),
    ],
)
def test_segments_have_the_codes_of_the_whole(normalize, quantization, segment_frames):
    """A normalisation looks at the whole recording, wherever a segment ends."""
    model = tiny("stereo", normalize=normalize, quantization=quantization)
    pcm = noise(model)
    codes = encode(pcm, model.spec)
    size = segment_frames or len(codes)
    nats = sum(nats_of(model, codes[start : start + size]).sum() for start in range(0, len(codes), size))
    assert score(model, pcm, segment_frames).nats == pytest.approx(nats, rel=1e-9)
    if normalize != "none":
        parts = np.concatenate([encode(part, model.spec) for part in np.split(pcm[:48], 6)])
        assert not np.array_equal(parts, codes[:48])


@pytest.mark.parametrize("segment_frames", [None, 7, 40])
def test_seconds_are_those_of_the_recording(segment_frames):
    model = tiny("stereo", sample_rate=10)
    pcm = noise(model, FRAMES)
    scoring = Scoring(model, pcm, segment_frames)
    assert sum(scoring.pieces()) == scoring.frames == FRAMES
    bits = np.array(scoring.second_bits())
    assert len(bits) == 11
    assert bits.sum(0) == pytest.approx(np.array(scoring.result().channel_nats) / math.log(2), rel=1e-12)
    if segment_frames is None:
        first = score(model, pcm[:30]).channel_nats
        assert bits[:3].sum(0) == pytest.approx(np.array(first) / math.log(2), rel=1e-9)


@pytest.mark.parametrize(
    ("model", "segment_frames", "pieces"),
    [
        *(("mono", None, 1), ("stereo", None, 3), ("experts", None, 3), ("separate", 7, 1), ("stereo-dml", 7, 2)),
        *(("experts", 7, 1), ("mono", 40, 2), ("stereo", 40, 3), ("stereo-dml", None, 1), ("separate", 40, 3)),
    ],
    indirect=["model"],
)
def test_an_interruption_changes_no_bit(model, segment_frames, pieces):
    pcm = noise(model, FRAMES)
    whole = Scoring(model, pcm, segment_frames)
    assert sum(whole.pieces()) == FRAMES
    begun = Scoring(model, pcm, segment_frames)
    frames = sum(n for n, _ in zip(begun.pieces(), range(pieces), strict=False))
    assert begun.frames >= frames > 0
    file = io.BytesIO()
    torch.save(begun.state(), file)
    assert file.tell() < 100_000
    file.seek(0)
    rest = Scoring(model, pcm, segment_frames)
    rest.restore(torch.load(file, weights_only=True))
    assert begun.frames + sum(rest.pieces()) == FRAMES
    assert (rest.result(), rest.second_bits()) == (whole.result(), whole.second_bits())


@pytest.mark.parametrize("normalize", ["none", "peak"])
def test_the_model_sees_few_frames_at_once(monkeypatch, normalize):
    shapes, advance = [], LanguageModel._advance

    def watched(self, codes, *others):
        shapes.append(tuple(codes.shape[:2]))
        return advance(self, codes, *others)

    monkeypatch.setattr(LanguageModel, "_advance", watched)
    model = tiny("stereo", pad_len=3, normalize=normalize)
    score(model, noise(model))
    assert shapes == [(1, 1)] * 4 + [(1, 16)] * 3 + [(1, 2)], "start codes one by one, the recording in segments"
    for segment_frames in (3, 40):
        shapes.clear()
        score(model, noise(model, FRAMES), segment_frames)
        assert max(rows * length for rows, length in shapes) <= 16
    shapes.clear()
    Stream(tiny("stereo", pad_len=40), 1, "reference")
    assert shapes == [(1, 1)] * 41


def test_start_codes_in_segments_change_no_result(monkeypatch):
    model = tiny("stereo", pad_len=40)
    short = score(model, noise(model)).nats
    monkeypatch.setattr(stream_module, "PREFILL_FRAMES", 1000)
    assert score(model, noise(model)).nats == pytest.approx(short, rel=1e-9)


def test_a_score_reads_as_one_line():
    stereo = TrackScore((math.log(2) * 400, math.log(2) * 200), 100, AudioSpec(1000, 2, 16))
    assert str(stereo) == "3.000 bits/sample (left 4.000, right 2.000), 1.500 bits/byte, 100 frames"
    mono = TrackScore((math.log(2) * 4000,), 1000, AudioSpec(1000, 1, 8))
    assert str(mono) == "4.000 bits/sample, 4.000 bits/byte, 1,000 frames"


def test_the_model_is_left_as_it_was(model):
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    score(model, noise(model))
    generate(model, 0.004)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_numbers_that_mean_nothing_are_refused():
    model = tiny("stereo")
    with torch.no_grad():
        next(model.head.parameters()).fill_(math.nan)
    with pytest.raises(NonFiniteOutputError, match="NaN or infinity"):
        score(model, noise(model))


@pytest.mark.parametrize("value", [0, -1])
def test_a_segment_has_frames(value):
    model = tiny("stereo")
    with pytest.raises(ValueError, match="segment_frames must be an integer of at least 1"):
        Scoring(model, noise(model), value)


@pytest.mark.parametrize(
    ("pcm", "message"),
    [
        (np.full((9, 2), np.nan, np.float32), r"int16; got float32.*stereo_sashimi\.read.*float_to_pcm"),
        (np.zeros((9, 1), np.int16), r"shape \(frames, 2\); got \(9, 1\)"),
        (np.zeros(9, np.int16), r"shape \(frames, 2\); got \(9,\)"),
        (np.zeros((0, 2), np.int16), "no frames"),
    ],
    ids=["nan", "mono", "flat", "empty"],
)
def test_other_arrays_are_refused(pcm, message):
    with pytest.raises(ValueError, match=message):
        score(tiny("stereo"), pcm)
