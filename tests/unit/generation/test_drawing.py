"""Audio in blocks: the same audio however it is cut, nothing held back, and totals that are those of the whole."""

import gc
import itertools
import weakref

import numpy as np
import pytest
import torch

from stereo_sashimi.generation import blocks as drawing
from stereo_sashimi.generation import stream as stream_module
from stereo_sashimi.generation.blocks import blocks
from stereo_sashimi.generation.engines.engine import Frames
from stereo_sashimi.generation.philox import Sampler
from stereo_sashimi.generation.results import Tally
from stereo_sashimi.generation.sampling import draw
from stereo_sashimi.generation.stream import Stream
from stereo_sashimi.models.language_model import LanguageModel, LanguageModelConfig
from stereo_sashimi.models.sashimi import SashimiConfig
from stereo_sashimi.nn.embedding import EmbeddingConfig
from stereo_sashimi.nn.heads.head import CategoricalHeadConfig, DMLHeadConfig
from stereo_sashimi.nn.s4 import S4Config
from stereo_sashimi.spec import AudioSpec

COUPLED = CategoricalHeadConfig("autoregressive")


def make(head=COUPLED, channels: int = 2) -> LanguageModel:
    torch.manual_seed(0)
    backbone = SashimiConfig(d_model=4, n_layers=1, pool=(2, 2), layer=S4Config(d_state=4))
    return LanguageModelConfig(AudioSpec(1000, channels, 8), EmbeddingConfig(4), backbone, head).build().double().eval()


@pytest.fixture(params=["mono", "stereo", "stereo-dml"])
def model(request) -> LanguageModel:
    if request.param == "stereo-dml":
        return make(DMLHeadConfig("autoregressive", n_mixtures=2))
    return make(channels=1, head=CategoricalHeadConfig()) if request.param == "mono" else make()


def music(model: LanguageModel, frames: int) -> np.ndarray:
    rng = np.random.default_rng(frames)
    return rng.integers(-9000, 9000, (frames, model.spec.n_channels)).astype(np.int16)


def test_blocks_are_the_draw_in_order(model, monkeypatch):
    """Prompt first, then what is drawn; however many frames at once, and without end."""
    monkeypatch.setattr(stream_module, "PREFILL_FRAMES", 8)
    prompt = music(model, 20)
    whole = draw(model, 12, [5, 6], prompt=prompt)
    parts = list(blocks(model, 12, [5, 6], prompt=prompt, frames_at_once=5))
    assert [(part.pcm.shape[:2], part.drawn) for part in parts] == [
        *[((2, n), False) for n in (8, 8, 4)],
        *[((2, n), True) for n in (5, 5, 2)],
    ]
    assert np.array_equal(np.concatenate([part.pcm for part in parts], axis=1), whole.pcm)
    tally = Tally(model.spec)
    assert (tally.scores(), tally.prompt_scores()) == ([], None)
    for part in parts:
        tally.add(part)
    assert (tally.frames, tally.prompt_frames) == (12, 20)
    for ours, theirs in ((tally.scores(), whole.scores), (tally.prompt_scores(), whole.prompt_scores)):
        assert [s.frames for s in ours] == [s.frames for s in theirs]
        assert [s.channel_nats for s in ours] == [pytest.approx(s.channel_nats, rel=1e-9) for s in theirs]
    assert all(part.seconds == 0 for part in parts if not part.drawn)
    # An engine may compile in the first block.
    assert tally.frames_per_s == pytest.approx(7 / sum(part.seconds for part in parts[-2:]))
    alone = Tally(model.spec)
    alone.add(parts[3])
    assert alone.frames_per_s == 5 / parts[3].seconds
    endless = blocks(model, None, [5, 6], prompt=prompt, frames_at_once=6)
    taken = [next(endless).pcm for _ in range(3 + 4)]
    assert np.array_equal(np.concatenate(taken, axis=1)[:, :32], whole.pcm)


@pytest.mark.parametrize(("step", "lengths"), [(0.001, [64, 128, 256, 512, 1024, 1024, 992]), (0.02, [64] * 3 + [8])])
def test_a_fast_engine_draws_more_at_once(monkeypatch, step, lengths):
    clock = itertools.count(0, step)
    monkeypatch.setattr(drawing.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(Stream, "generate", lambda stream, n, *_: iter([Frames(*torch.zeros(2, 1, n, 2, dtype=int))]))
    model = make()
    assert [part.pcm.shape[1] for part in blocks(model, sum(lengths), [0])] == lengths


def test_a_slow_engine_draws_less_at_once(monkeypatch):
    seconds = [0.001, 0.001, 0.06, 0.06, 0.06, 0.06]
    clock = itertools.accumulate(itertools.chain(*([0.0, s] for s in seconds)))
    monkeypatch.setattr(drawing.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(Stream, "generate", lambda stream, n, *_: iter([Frames(*torch.zeros(2, 1, n, 2, dtype=int))]))
    parts = blocks(make(), None, [0])
    assert [next(parts).pcm.shape[1] for _ in seconds] == [64, 128, 256, 128, 64, 64]


def test_codes_do_not_depend_on_the_block():
    model = make()
    one, other = (
        np.concatenate([part.pcm for part in blocks(model, 150, [3], frames_at_once=size)], axis=1)
        for size in (None, 7)
    )
    assert np.array_equal(one, other)


@pytest.mark.slow
def test_endless_blocks_hold_nothing_back():
    """No block outlives the next one, and as many tensors are alive after 20 blocks as after 10."""
    tensors, past = [], []
    for i, block in zip(range(21), blocks(make(), None, [5, 6], frames_at_once=2), strict=False):
        assert not any(array() is not None for array in past[:-2])
        past += [weakref.ref(block.pcm), weakref.ref(block.nats)]
        if i in (10, 20):
            gc.collect()
            tensors.append(sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects()))
    assert tensors[0] == tensors[1]


def test_blocks_check_before_the_first_is_asked_for():
    model = make(DMLHeadConfig("autoregressive", n_mixtures=2))
    for arguments, message in (
        ((model, 0, [0]), r"n_frames must be at least 1, or None; got 0"),
        ((model, 1, [0], Sampler(top_k=2)), "neither top_k nor top_p"),
    ):
        with pytest.raises(ValueError, match=message):
            blocks(*arguments[:3], sampler=arguments[3] if len(arguments) > 3 else None)
