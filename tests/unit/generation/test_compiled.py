"""The compiled engine equals the reference, and to the bit does not depend on batch, threads or blocks of frames."""

from pathlib import Path

import pytest
import torch
from small_models import CASES, small

from processors import on_x86_64, printed_on_each_processor
from stereo_sashimi.distributions.sampler import Sampler
from stereo_sashimi.generation.engines.engine import EngineError, resolve
from stereo_sashimi.generation.stream import Stream, StreamState
from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.models.language_model_config import LanguageModelConfig
from stereo_sashimi.models.sashimi import SashimiConfig
from stereo_sashimi.nn.embedding import EmbeddingConfig
from stereo_sashimi.nn.heads.head import CategoricalHeadConfig, DMLHeadConfig
from stereo_sashimi.spec import AudioSpec

each_case = pytest.mark.parametrize("case", CASES)


def random_codes(model, batch_size: int, frames: int) -> torch.Tensor:
    return torch.randint(model.spec.n_levels, (batch_size, frames, model.spec.n_channels))


def draw(stream: Stream, frames: int, sampler: Sampler | None = None, seeds=None, at_once: int = 64):
    blocks = list(stream.generate(frames, sampler, seeds, at_once))
    return torch.cat([b.codes for b in blocks], 1), torch.cat([b.log_prob for b in blocks], 1)


def assert_states_close(a: Stream, b: Stream, atol: float) -> None:
    one, other = a.state().engine, b.state().engine
    assert one.backbone.phase == other.backbone.phase
    torch.testing.assert_close(one.hidden, other.hidden, rtol=0, atol=atol)
    for x, y in zip(one.backbone.layers, other.backbone.layers, strict=True):
        assert (x is None) == (y is None)
        if x is not None:
            torch.testing.assert_close(x, y, rtol=0, atol=atol)


def tensors(state: StreamState) -> list[torch.Tensor]:
    return [state.engine.hidden, *(layer for layer in state.engine.backbone.layers if layer is not None)]


@each_case
def test_steps_and_draws_are_those_of_the_reference(case):
    model = small(case)
    reference, compiled = Stream(model, 2, "reference"), Stream(model, 2, "compiled")
    (expected, expected_log_prob), (codes, log_prob) = draw(reference, 25), draw(compiled, 25, at_once=7)
    assert torch.equal(codes, expected)
    torch.testing.assert_close(log_prob, expected_log_prob, rtol=0, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(model.log_prob(codes), log_prob, rtol=0, atol=1e-5)
    for frames in (1, 4, 20):
        codes = random_codes(model, 2, frames)
        torch.testing.assert_close(compiled.step(codes), reference.step(codes), rtol=0, atol=1e-5)
        assert_states_close(compiled, reference, 1e-5)


@pytest.mark.parametrize("case", ["sum dml", "unet dml", "none"])
def test_16_bits(case):
    model = small(case, bits=16)
    codes, log_prob = draw(Stream(model, 2, "compiled"), 25)
    assert codes.max() > 1000
    with torch.no_grad():
        # 16-bit log-probabilities of narrow logistics hold fewer digits in float32.
        torch.testing.assert_close(model.log_prob(codes), log_prob, rtol=1e-4, atol=1e-4)


@each_case
def test_rows_threads_and_blocks_change_no_bit(case, monkeypatch):
    model = small(case)
    codes = random_codes(model, 5, 9)
    together = Stream(model, 5, "compiled")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    hidden = together.step(codes)
    drawn = draw(together, 17, seeds=[3, 1, 4, 1, 5], at_once=5)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    for row, seed in enumerate((3, 1, 4, 1, 5)):
        alone = Stream(model, 1, "compiled")
        for frame in codes[row : row + 1].split(1, dim=1):
            last = alone.step(frame)
        assert torch.equal(last, hidden.chunk(5)[row][:, -1:])
        for one, all_of_them in zip(draw(alone, 17, seeds=[seed], at_once=1), drawn, strict=True):
            assert torch.equal(one, all_of_them[row : row + 1])


def test_where_a_track_begins_has_the_same_bits_on_any_number_of_threads():
    """At a width where torch shares a product out; it does so with its own number of threads."""
    states = []
    for threads in (1, 2):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            stream = Stream(full_size("stereo concat")[0], 1)
            states.append([*tensors(stream.state()), *next(stream.generate(20, frames_at_once=20))])
        finally:
            torch.set_num_threads(before)
    assert all(map(torch.equal, *states))


@each_case
def test_a_state_goes_on_to_the_bit_and_on_the_other_engine(case):
    model = small(case)
    stream = Stream(model, 2, "compiled")
    stream.step(random_codes(model, 2, 8))
    saved = stream.state()
    before = [x.clone() for x in tensors(saved)]
    first = draw(stream, 13)
    assert all(map(torch.equal, before, tensors(saved))), "a state changed while its stream went on"
    again, reference = Stream(model, 2, "compiled"), Stream(model, 2, "reference")
    for other, exactly in ((stream, True), (again, True), (reference, False)):
        other.restore(saved)
        second = draw(other, 13)
        assert torch.equal(second[0], first[0])
        torch.testing.assert_close(second[1], first[1], rtol=0, atol=0 if exactly else 1e-5)
    again.restore(reference.state())
    assert_states_close(again, reference, 0)


def test_a_spread_stream_reads_its_prompt_once():
    model = small("concat coupled")
    one = Stream(model, 1, "compiled")
    one.prefill(random_codes(model, 1, 11))
    three = one.spread(3)
    assert three.engine.packed is one.engine.packed
    codes, _ = draw(three, 9, seeds=[5, 6, 5])
    assert torch.equal(codes[0], codes[2])
    assert not torch.equal(codes[0], codes[1])
    assert torch.equal(draw(one, 9, seeds=[6])[0][0], codes[1])
    with pytest.raises(ValueError, match="batch_size of 1; this one has 3"):
        three.spread(2)


@pytest.mark.parametrize(
    ("case", "options"),
    [("concat coupled", {"temperature": 0.0}), ("none categorical", {"temperature": 0.3, "top_k": 3}),
     ("concat coupled", {"temperature": 1.5, "top_k": 40, "top_p": 0.7}), ("none categorical", {"top_p": 0.4}),
     ("sum dml", {"temperature": 0.0}), ("none", {"temperature": 2.0}), ("sum dml", {"mixture_temperature": 0.0}),
     ("none", {"scale_temperature": 0.0}),
     ("sum dml", {"temperature": 0.8, "mixture_temperature": 0.5, "scale_temperature": 0.1})],
    ids=str,
)  # fmt: skip
def test_samplers_reach_the_draw(case, options):
    model, sampler = small(case), Sampler(**options)
    expected = draw(Stream(model, 2, "reference"), 25, sampler)
    codes, log_prob = draw(Stream(model, 2, "compiled"), 25, sampler)
    assert torch.equal(codes, expected[0])
    torch.testing.assert_close(log_prob, expected[1], rtol=1e-5, atol=1e-5)


def test_what_the_engine_cannot_run_is_said():
    model = small("mono")
    assert Stream(model, 1).engine.name == "compiled"
    assert Stream(model.double(), 1).engine.name == "reference"
    with pytest.raises(EngineError, match=r"float32, and this model has torch.float64 .* engine=reference"):
        Stream(model, 1, "compiled")
    with pytest.raises(EngineError, match=r"runs on a CPU, and this model is on meta"):
        Stream(small("mono").to("meta"), 1, "compiled")
    with pytest.raises(EngineError, match=r"engine must be one of auto, .*compiled.*; got 'fast'"):
        resolve("fast", model)


SEED_SIZES = {
    "mono 8 bit": (1, 8, "concat", CategoricalHeadConfig(), {"norm": "scalar", "pool_weight_norm": True}),
    "mono 8 bit unet": (1, 8, "concat", CategoricalHeadConfig(), {"unet": True}),
    "stereo sum dml": (2, 16, "sum", DMLHeadConfig("autoregressive"), {"norm": "scalar", "pool_weight_norm": True}),
    "stereo concat": (2, 8, "concat", CategoricalHeadConfig("autoregressive"), {}),
}


def full_size(case: str) -> tuple[LanguageModel, torch.Tensor]:
    """A model of the original's sizes, and 2,000 frames of a random walk: it wanders over the codes as music does."""
    n_channels, bits, merge, head, fields = SEED_SIZES[case]
    torch.manual_seed(1)
    spec, backbone = AudioSpec(44100, n_channels, bits), SashimiConfig(**fields)
    model = LanguageModelConfig(spec, EmbeddingConfig(64, merge), backbone, head).build().eval()
    walk = torch.randint(-9, 10, (1, 2000, n_channels)).cumsum(1) * 2 ** (bits - 8)
    return model, (walk + 2 ** (bits - 1)).clamp(0, 2**bits - 1)


@torch.no_grad()
@pytest.mark.parametrize("case", SEED_SIZES)
def test_parameters_of_the_full_size_are_those_of_one_parallel_pass(case):
    model, codes = full_size(case)
    whole = model(torch.cat([model.start_codes(1), codes], dim=1))[0][:, 1:]
    expected, got = (
        torch.stack([model.head.channel_parameters(h[:, :-1], codes[:, 1:, :c], c) for c in range(codes.shape[2])], -2)
        for h in (whole, Stream(model, 1, "compiled").step(codes))
    )
    error = (expected - got).abs().max()
    print(f"largest difference of parameters {error:.1e}, of magnitude up to {expected.abs().max():.1f}")
    assert error < 1e-4
    if model.config.decoder.kind == "categorical":
        top = expected.topk(2, dim=-1).values
        clear = top[..., 0] - top[..., 1] > 2e-4
        assert clear.any()
        assert torch.equal(expected.argmax(-1)[clear], got.argmax(-1)[clear])


PRINTED = """
import sys, torch
sys.path.insert(0, {folder!r})
from small_models import small
from stereo_sashimi.generation.stream import Stream
for case in ("concat coupled", "unet dml"):
    stream = Stream(small(case), 2, "compiled")
    frames = next(stream.generate(40, seeds=[1, 2], frames_at_once=40))
    state = stream.state().engine
    for x in (*frames, state.hidden, *(x for x in state.backbone.layers if x is not None)):
        print(x.resolve_conj().contiguous().view(torch.uint8).numpy().tobytes().hex())
"""


@pytest.mark.slow
@pytest.mark.long
@on_x86_64
def test_no_bit_depends_on_the_vector_instructions_of_the_processor(tmp_path):
    assert len(printed_on_each_processor(PRINTED.format(folder=str(Path(__file__).parent)), tmp_path)) == 1
