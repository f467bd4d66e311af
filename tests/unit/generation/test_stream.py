"""Stream: sampling agrees with the model's own likelihood, and each stream depends on its own seed only."""

from dataclasses import replace

import pytest
import torch
from tiny_models import tiny

from stereo_sashimi.distributions.sampler import Sampler
from stereo_sashimi.generation import stream as stream_module
from stereo_sashimi.generation.engines.engine import NonFiniteOutputError
from stereo_sashimi.generation.philox import UniformStreams
from stereo_sashimi.generation.stream import Stream
from stereo_sashimi.models.language_model import LanguageModel
from tiny_config import tiny_config


@pytest.fixture(params=["mono", "stereo", "stereo-dml"])
def model(request) -> LanguageModel:
    return tiny(request.param).train()


def draw(stream: Stream, n_frames: int, seeds: list[int], sampler: Sampler | None = None):
    frames = list(stream.generate(n_frames, sampler or Sampler(), seeds))
    return torch.cat([f.codes for f in frames], 1), torch.cat([f.log_prob for f in frames], 1)


def test_log_probs_of_a_draw_are_those_of_the_model(model):
    """From the start code on, and untempered."""
    codes, log_prob = draw(Stream(model, 2), 11, [1, 2], Sampler(temperature=0.7))
    assert codes.shape == (2, 11, model.spec.n_channels)
    torch.testing.assert_close(log_prob, model.eval().log_prob(codes).detach(), rtol=0, atol=1e-9)


def test_a_prompt_at_once_equals_stepping_through_it(model, monkeypatch):
    monkeypatch.setattr(stream_module, "PREFILL_FRAMES", 4)
    codes = torch.randint(256, (2, 9, model.spec.n_channels))
    at_once, stepped = Stream(model, 2), Stream(model, 2)
    log_prob = at_once.prefill(codes)
    for frame in codes.split(1, dim=1):
        stepped.step(frame)
    torch.testing.assert_close(log_prob, model.eval().log_prob(codes).detach(), rtol=0, atol=1e-9)
    torch.testing.assert_close(at_once.state().engine, stepped.state().engine, rtol=0, atol=1e-9)
    assert torch.equal(draw(at_once, 5, [1, 2])[0], draw(stepped, 5, [1, 2])[0])


def test_an_empty_prompt_changes_nothing(model):
    stream = Stream(model, 2)
    before = stream.state()
    assert stream.prefill(torch.zeros(2, 0, model.spec.n_channels, dtype=torch.int64)).shape[1] == 0
    assert stream.state().engine.backbone is before.engine.backbone
    assert stream.state().engine.hidden is before.engine.hidden
    with pytest.raises(ValueError, match="at least one frame"):
        stream.step(torch.zeros(2, 0, model.spec.n_channels, dtype=torch.int64))


def test_a_state_of_another_stream_is_refused_and_changes_nothing(model):
    stream = Stream(model, 2)
    saved, other = stream.state(), Stream(replace(tiny_config(n_layers=2), spec=model.spec).build().double(), 2).state()
    narrow = Stream(model, 1).state()
    for wrong in (
        other,
        narrow._replace(random=saved.random),
        saved._replace(engine=saved.engine._replace(hidden=saved.engine.hidden.float())),
    ):
        with pytest.raises(ValueError, match="another model, precision or batch size"):
            stream.restore(wrong)
    with pytest.raises(ValueError, match="that of 1 streams; the stream has a batch_size of 2"):
        stream.restore(narrow)
    torch.testing.assert_close(stream.state(), saved, rtol=0, atol=0)


def test_wrong_codes_are_refused(model):
    stream = Stream(model, 1)
    good = torch.zeros(1, 2, model.spec.n_channels, dtype=torch.int64)
    for feed in (stream.step, stream.prefill):
        for code in (-1, 256):
            with pytest.raises(ValueError, match=f"0 to 255; got {code} to {code}"):
                feed(torch.full_like(good, code))
        for wrong in (good.expand(2, -1, -1), good.repeat(1, 1, 2)):
            with pytest.raises(ValueError, match=r"shape \(batch, length, channels\)"):
                feed(wrong)


def test_wrong_numbers_are_refused():
    model = tiny("stereo")
    with pytest.raises(ValueError, match="batch_size must be an integer of at least 1, one for each sample; got 0"):
        Stream(model, 0)
    with pytest.raises(ValueError, match="one seed a stream: 2; got 3"):
        next(Stream(model, 2).generate(1, Sampler(), [1, 2, 3]))
    with pytest.raises(ValueError, match="n_frames must be 0 or more"):
        Stream(model, 1).generate(-1)
    with pytest.raises(ValueError, match="at least one seed"):
        UniformStreams([], 1, 1)
    for seed in (-1, 2**63, True):
        with pytest.raises(ValueError, match="seed must be an integer"):
            UniformStreams([seed], 1, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_model_that_overflows_is_not_drawn_from(model, dtype):
    """In float32 it runs on the compiled engine, in float64 on the reference."""
    model = model.to(dtype)
    with torch.no_grad():
        for table in model.embedding.tables:
            table.weight.fill_(torch.finfo(dtype).max / 2)
    with pytest.raises(NonFiniteOutputError, match="NaN or infinity"):
        draw(Stream(model, 1), 9, [0])


@pytest.mark.parametrize("model", ["stereo"], indirect=True)
def test_memory_does_not_grow_with_the_number_of_frames(model):
    stream = Stream(model, 1)

    def elements() -> int:
        state, hidden = stream.state().engine
        return hidden.numel() + sum(t.numel() for t in state.layers if t is not None)

    sizes = []
    for _ in stream.generate(200, Sampler(), [0]):
        sizes.append(elements())
    stride = stream.model.backbone.stride
    assert sizes[-stride:] == sizes[:stride], "a state depends on more than its phase"


def test_the_model_is_read_once(model):
    stream, same = Stream(model, 1), Stream(model, 1)
    assert not stream.model.training
    expected = draw(same, 6, [5])[0]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert torch.equal(draw(stream, 6, [5])[0], expected)
    assert model.training, "the caller's model was put into eval mode"


def test_uniforms_depend_on_seed_and_frame_alone(monkeypatch):
    monkeypatch.setattr(UniformStreams, "BLOCK_FRAMES", 5)
    streams = UniformStreams([4, 5], 2, 3)
    numbers = streams.take(23)
    assert numbers.dtype == torch.float64
    assert numbers.shape == (2, 23, 2, 3)
    assert len(numbers.unique()) == numbers.numel(), "a block was repeated"
    assert 0 <= numbers.min() < 0.1 < 0.9 < numbers.max() < 1
    alone = UniformStreams([5], 2, 3)
    assert torch.equal(torch.cat([alone.take(n) for n in (1, 3, 1, 12, 6)], dim=1), numbers[1:])
    assert alone.state() == ((5,), 23)
    later = UniformStreams([5], 2, 3, position=8)
    assert torch.equal(later.take(2), numbers[1:, 8:10])


def test_uniforms_are_uniform():
    numbers = UniformStreams([0, 2**63 - 1], 1, 1).take(20000).flatten().sort().values
    expected = (torch.arange(len(numbers), dtype=torch.float64) + 0.5) / len(numbers)
    # The Kolmogorov-Smirnov distance exceeds 2.2 / sqrt(n) once in 10,000 times.
    assert (numbers - expected).abs().max() < 2.2 / len(numbers) ** 0.5
