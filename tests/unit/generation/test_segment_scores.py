"""Scores by segments: each costs what it costs as a track of its own, and an interruption changes no bit."""

import io
import math

import numpy as np
import pytest
import torch
from small_models import small

from stereo_sashimi.generation import stream as stream_module
from stereo_sashimi.generation.engines.engine import NonFiniteError
from stereo_sashimi.generation.sampling import score
from stereo_sashimi.generation.scoring import Scoring, score_segments
from stereo_sashimi.models.language_model import LanguageModel

FRAMES = 103


@pytest.fixture(params=["mono", "concat coupled", "sum dml", "none"])
def model(request) -> LanguageModel:
    return small(request.param).double()


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(stream_module, "PREFILL_FRAMES", 16)


def music(model: LanguageModel, frames: int = FRAMES) -> np.ndarray:
    rng = np.random.default_rng(frames)
    return rng.integers(-9000, 9000, (frames, model.spec.n_channels)).astype(np.int16)


def test_carried_is_the_score_of_the_whole(model):
    pcm = music(model)
    assert score_segments(model, pcm, None).channel_nats == pytest.approx(score(model, pcm).channel_nats, rel=1e-12)


@pytest.mark.parametrize("segment_frames", [3, 8, 20, 103, 500])
def test_a_segment_is_a_track_of_its_own(model, segment_frames):
    pcm = music(model)
    alone = [
        score(model, pcm[start : start + segment_frames]).channel_nats for start in range(0, FRAMES, segment_frames)
    ]
    found = score_segments(model, pcm, segment_frames)
    assert found.channel_nats == pytest.approx(np.sum(alone, axis=0), rel=1e-9)


@pytest.mark.parametrize("segment_frames", [None, 7, 40])
def test_seconds_are_those_of_the_recording(monkeypatch, segment_frames):
    model = small("concat coupled").double()
    object.__setattr__(model.spec, "sample_rate", 10)
    pcm = music(model)
    found = score_segments(model, pcm, segment_frames)
    assert len(found.second_bits) == 11
    total = np.sum(found.second_bits, axis=0)
    assert total == pytest.approx(np.array(found.channel_nats) / math.log(2), rel=1e-12)
    if segment_frames is None:
        first = score(model, pcm[:30]).channel_nats
        assert np.sum(found.second_bits[:3], axis=0) == pytest.approx(np.array(first) / math.log(2), rel=1e-9)


@pytest.mark.parametrize("segment_frames", [None, 7, 40])
@pytest.mark.parametrize("pieces", [1, 2, 3])
def test_an_interruption_changes_no_bit(model, segment_frames, pieces):
    pcm = music(model)
    whole = score_segments(model, pcm, segment_frames)
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
    assert rest.score() == whole


def test_the_model_sees_few_frames_at_once(monkeypatch):
    model, seen, forward = small("concat"), [], LanguageModel.forward

    def watched(self, codes, state=None):
        seen.append(codes.shape[0] * codes.shape[1])
        return forward(self, codes, state)

    monkeypatch.setattr(LanguageModel, "forward", watched)
    for segment_frames in (None, 3, 40):
        score_segments(model, music(model), segment_frames, batch_size=4)
    assert max(seen) == 16


def test_numbers_that_mean_nothing_are_refused():
    model = small("concat")
    with torch.no_grad():
        next(model.head.parameters()).fill_(math.nan)
    with pytest.raises(NonFiniteError, match="NaN or infinity"):
        score_segments(model, music(model), None)


@pytest.mark.parametrize("value", [0, -1])
def test_a_segment_has_frames(value):
    model = small("concat")
    with pytest.raises(ValueError, match="segment_frames must be an integer of at least 1"):
        score_segments(model, music(model), value)
    with pytest.raises(ValueError, match="batch_size must be an integer of at least 1"):
        score_segments(model, music(model), None, value)
