"""Sampling: a continuation goes on where its prompt ended, the same audio however it is cut into blocks."""

import gc
import itertools
import weakref

import numpy as np
import pytest
import torch
from tiny_models import CASES, nats_of, noise, tiny

from stereo_sashimi.audio.quantize import decode, encode
from stereo_sashimi.distributions.sampler import Sampler
from stereo_sashimi.generation import sampling
from stereo_sashimi.generation import stream as stream_module
from stereo_sashimi.generation.engines.engine import Frames
from stereo_sashimi.generation.results import SamplingTotals
from stereo_sashimi.generation.sampling import blocks, draw, frames_in, generate
from stereo_sashimi.generation.stream import Stream
from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.spec import AudioSpec


@pytest.fixture(params=CASES)
def model(request) -> LanguageModel:
    return tiny(request.param, pad_len=3)


def joined(parts) -> np.ndarray:
    return np.concatenate([part.pcm for part in parts], axis=1)


def test_a_new_track_has_the_asked_length_and_repeats_by_seed(model):
    first, again = generate(model, 0.012, seed=3), generate(model, 0.012, seed=3)
    assert (first.dtype, first.shape) == (np.int16, (12, model.spec.n_channels))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, generate(model, 0.012, seed=4))


def test_a_continuation_is_the_stream_after_its_prompt(model, monkeypatch):
    monkeypatch.setattr(stream_module, "PREFILL_FRAMES", 16)
    prompt = noise(model)
    longer = generate(model, 0.012, prompt=prompt, seed=2, temperature=0.9)
    codes = encode(prompt, model.spec)
    assert np.array_equal(longer[:50], decode(codes, model.spec))
    stream = Stream(model, 1)
    stream.prefill(torch.from_numpy(codes)[None])
    drawn = [frame.codes[0, 0].numpy() for frame in stream.generate(12, Sampler(0.9), [2])]
    assert np.array_equal(longer[50:], decode(np.stack(drawn), model.spec))


def test_a_batch_is_its_rows_and_scores_what_it_drew(model):
    prompt = noise(model, 20)
    pcm, totals = draw(model, 12, [5, 6], prompt=prompt)
    assert pcm.shape == (2, 32, model.spec.n_channels)
    for row, seed in enumerate((5, 6)):
        assert np.array_equal(pcm[row], generate(model, 0.012, prompt=prompt, seed=seed))
        nats = nats_of(model, encode(pcm[row], model.spec))
        assert totals.scores()[row].channel_nats == pytest.approx(nats[20:].sum(0), rel=1e-9)
        assert totals.scores()[row].frames == 12
        assert totals.prompt_scores()[row].channel_nats == pytest.approx(nats[:20].sum(0), rel=1e-9)
    assert draw(model, 2, [0])[1].prompt_scores() == []


def test_blocks_are_the_draw_in_order(model, monkeypatch):
    """Prompt first, then what is drawn; however many frames at once, and without end."""
    monkeypatch.setattr(stream_module, "PREFILL_FRAMES", 8)
    prompt = noise(model, 20)
    pcm, whole = draw(model, 12, [5, 6], prompt=prompt)
    parts = list(blocks(model, 12, [5, 6], prompt, block_frames=5))
    assert [(part.pcm.shape[:2], part.drawn) for part in parts] == [
        *[((2, n), False) for n in (8, 8, 4)],
        *[((2, n), True) for n in (5, 5, 2)],
    ]
    assert np.array_equal(joined(parts), pcm)
    totals = SamplingTotals(model.spec)
    assert (totals.scores(), totals.prompt_scores()) == ([], [])
    for part in parts:
        totals.add(part)
    assert (totals.frames, totals.prompt_frames) == (12, 20)
    for ours, theirs in ((totals.scores(), whole.scores()), (totals.prompt_scores(), whole.prompt_scores())):
        assert [s.frames for s in ours] == [s.frames for s in theirs]
        assert [s.channel_nats for s in ours] == [pytest.approx(s.channel_nats, rel=1e-9) for s in theirs]
    assert all(part.seconds == 0 for part in parts if not part.drawn)
    # An engine may compile in the first block.
    assert totals.frames_per_s == pytest.approx(7 / sum(part.seconds for part in parts[-2:]))
    alone = SamplingTotals(model.spec)
    alone.add(parts[3])
    assert alone.frames_per_s == 5 / parts[3].seconds
    endless = blocks(model, None, [5, 6], prompt, block_frames=6)
    assert np.array_equal(joined(next(endless) for _ in range(3 + 4))[:, :32], pcm)


@pytest.mark.parametrize(
    ("seconds", "lengths"),
    [
        ([0.001] * 7, [64, 128, 256, 512, 1024, 1024, 1024]),
        ([0.02] * 4, [64] * 4),
        ([0.001, 0.001, 0.06, 0.06, 0.06, 0.06], [64, 128, 256, 128, 64, 64]),
    ],
    ids=["fast", "slow", "slower"],
)
def test_the_length_of_a_block_follows_the_speed(monkeypatch, seconds, lengths):
    clock = itertools.accumulate(itertools.chain(*([0.0, s] for s in seconds)))
    monkeypatch.setattr(sampling.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(Stream, "draw", lambda stream, n, sampler: Frames(*torch.zeros(2, 1, n, 2, dtype=int)))
    parts = blocks(tiny("stereo"), None, [0])
    assert [next(parts).pcm.shape[1] for _ in seconds] == lengths


@pytest.mark.slow
def test_endless_blocks_hold_nothing_back():
    """No block outlives the next one, and as many tensors are alive after 20 blocks as after 10."""
    tensors, past = [], []
    for i, block in zip(range(21), blocks(tiny("stereo"), None, [5, 6], block_frames=2), strict=False):
        assert not any(array() is not None for array in past[:-2])
        past += [weakref.ref(block.pcm), weakref.ref(block.nats)]
        if i in (10, 20):
            gc.collect()
            tensors.append(sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects()))
    assert tensors[0] == tensors[1]


@pytest.mark.parametrize(
    ("n_frames", "sampler", "message"),
    [(0, None, r"n_frames must be at least 1, or None; got 0"), (1, Sampler(top_k=2), "neither top_k nor top_p")],
)
def test_blocks_check_before_the_first_is_asked_for(n_frames, sampler, message):
    with pytest.raises(ValueError, match=message):
        blocks(tiny("stereo-dml"), n_frames, [0], sampler=sampler)


def test_temperatures_of_a_mixture_reach_the_draw():
    model = tiny("stereo-dml")
    cold = generate(model, 0.01, mixture_temperature=0.0, scale_temperature=0.0, seed=1)
    assert np.array_equal(cold, generate(model, 0.01, temperature=0.0))
    assert not np.array_equal(cold, generate(model, 0.01, mixture_temperature=0.0, seed=1))
    with pytest.raises(ValueError, match="mixture_temperature and scale_temperature are for the DML head"):
        generate(tiny("stereo"), 0.01, scale_temperature=0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": 2**63}, r"seed must be an integer"),
        ({"seed": True}, r"seed must be an integer"),
        ({"prompt": np.zeros((9, 1), np.int16)}, r"shape \(frames, 2\); got \(9, 1\)"),
    ],
    ids=str,
)
def test_wrong_arguments_are_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        generate(tiny("stereo-dml"), **({"seconds": 0.01} | arguments))


def test_frames_are_rounded_to_the_nearest():
    spec = AudioSpec(44100, 1, 16)
    assert (frames_in(1.0, spec), frames_in(0.00004, spec)) == (44100, 2)
    with pytest.raises(ValueError, match="prompt_seconds must give"):
        frames_in(0.00001, spec, "prompt_seconds")
