"""CudaGraphEngine equals ReferenceEngine.

Without a CUDA device a "graph" runs the captured lines again on the same buffers (`Again`): all but CUDA's own capture
is tested here, and that in tests/e2e/test_gpu.py. What may be captured is tested in test_cudagraph_capture.py.
"""

import pytest
import torch
from small_models import CASES, numbers, small
from torch.utils._pytree import tree_leaves

from stereo_sashimi.distributions.sampler import Sampler
from stereo_sashimi.generation.engines import cuda_graph as cudagraph
from stereo_sashimi.generation.engines.cuda_graph import CudaGraphEngine
from stereo_sashimi.generation.engines.engine import EngineError, EngineState, resolve
from stereo_sashimi.generation.engines.reference_engine import ReferenceEngine
from stereo_sashimi.generation.stream import Stream
from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.nn.freeze import freeze
from stereo_sashimi.ops.backend_error import BackendError
from stereo_sashimi.ops.kernels import triton

TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-10}


class Again:
    """Stands in for `CudaGraphs`: a replay runs the work itself."""

    def __init__(self, device: torch.device) -> None:
        self.captured = 0

    def warm_up(self, work):
        work()

    def capture(self, work):
        self.captured += 1
        return work


def build(case: str, dtype=torch.float64, **fields) -> LanguageModel:
    return freeze(small(case, **fields).to(dtype))


@pytest.fixture(autouse=True)
def without_cuda(monkeypatch):
    monkeypatch.setattr(CudaGraphEngine, "graphs", Again)


def engines(model: LanguageModel, batch_size: int, fused: bool = False):
    """The reference and the engine, both behind the first frame."""
    pair = ReferenceEngine(model, batch_size), CudaGraphEngine(model, batch_size, fused)
    with torch.no_grad():
        hidden, state = model(model.start_codes(batch_size), model.initial_state(batch_size))
    for engine in pair:
        engine.restore(EngineState(state, hidden[:, -1:]))
    return pair


def assert_same(ours, expected, dtype=torch.float64):
    """States too: tuples of tensors and None."""
    pairs = list(zip(tree_leaves(ours), tree_leaves(expected), strict=True))
    assert pairs
    for value, other in pairs:
        if not isinstance(value, torch.Tensor) or not (value.is_floating_point() or value.is_complex()):
            assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other
        else:
            scale = max(1.0, other.abs().max().item()) if other.numel() else 1.0
            torch.testing.assert_close(value, other, rtol=0, atol=TOLERANCE[dtype] * scale)


def assert_drawn_and_fed_alike(reference, engine, uniforms, dtype):
    """Drawn, fed and drawn again; returns the first codes."""
    drawn, first = engine.draw(Sampler(), uniforms[:, :-5]), reference.draw(Sampler(), uniforms[:, :-5])
    assert_same(drawn, first, dtype)
    assert_same(engine.state(), reference.state(), dtype)
    codes = torch.randint(256, (len(drawn.codes), 3, drawn.codes.shape[2]))
    assert_same(engine.step(codes), reference.step(codes), dtype)
    assert_same(engine.state(), reference.state(), dtype)
    assert_same(engine.draw(Sampler(), uniforms[:, -5:]), reference.draw(Sampler(), uniforms[:, -5:]), dtype)
    return drawn.codes


@pytest.mark.parametrize(
    ("case", "dtype"),
    [
        *((case, torch.float64) for case in CASES if "experts" not in case),
        *((c, torch.float32) for c in ("concat coupled", "none", "unet dml")),
    ],
    ids=str,
)
def test_frames_and_states_are_those_of_the_reference(case, dtype, monkeypatch):
    """Over blocks that end in every phase."""
    monkeypatch.setattr(CudaGraphEngine, "BLOCK_FRAMES", 5)
    model = build(case, dtype)
    codes = assert_drawn_and_fed_alike(*engines(model, 2), numbers(model, 2, 28), dtype)
    assert codes.shape == (2, 23, model.spec.n_channels)
    assert len(codes.unique()) > 8


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "dtype"),
    [("mono dml, diagonal", torch.float32), ("mono dml, diagonal", torch.float64), ("sum dml", torch.float32),
     ("none", torch.float64), ("one level", torch.float32)],
    ids=str,
)  # fmt: skip
def test_so_are_those_of_fused_steps(case, dtype):
    """Under Triton's interpreter, which is slow, or on a device."""
    pytest.importorskip("triton")
    # Not 1: a layer norm over one channel is nothing but rounding, 300 times as large.
    model = build(case, dtype, d_model=2)
    assert_drawn_and_fed_alike(*engines(model, 2, fused=True), numbers(model, 2, 9), dtype)


def test_fused_steps_share_the_model_and_leave_it_alone():
    model = build("sum dml")
    before = [(name, tensor.data_ptr()) for name, tensor in model.state_dict().items()]
    engine = CudaGraphEngine(model, 1, fused=True)
    shared = {tensor.data_ptr() for tensor in engine._model.parameters()}
    assert shared == {tensor.data_ptr() for tensor in model.parameters()}
    assert [(name, tensor.data_ptr()) for name, tensor in model.state_dict().items()] == before
    assert type(engine.like(2)._model.head) is type(engine._model.head) is not type(model.head)


def test_graphs_are_captured_once_for_each_phase_and_the_latest_samplers():
    model = build("mono")
    _, engine = engines(model, 1)
    uniforms = numbers(model, 1, 13)
    engine.draw(Sampler(), uniforms)
    assert engine._graphs.captured == 6
    engine.draw(Sampler(), uniforms)
    assert engine._graphs.captured == 6
    engine.step(torch.zeros(1, 4, 1, dtype=torch.int64))
    assert engine._graphs.captured == 10
    for temperature in (0.2, 0.4, 0.6, 0.8):
        engine.draw(Sampler(temperature), uniforms[:, :6])
    assert engine._graphs.captured == 34
    engine.draw(Sampler(0.2), uniforms[:, :6])
    assert engine._graphs.captured == 34
    engine.draw(Sampler(), uniforms[:, :6])
    assert engine._graphs.captured == 40


@pytest.mark.parametrize(
    ("name", "samplers"),
    [
        ("concat coupled", [Sampler(), Sampler(0.0), Sampler(0.7, top_k=3), Sampler(top_p=0.5), Sampler()]),
        ("sum dml", [Sampler(0.0), Sampler(mixture_temperature=0.0, scale_temperature=2.0), Sampler()]),
    ],
)
def test_each_draw_uses_its_own_sampler(name, samplers):
    model = build(name)
    reference, engine = engines(model, 2)
    for i, sampler in enumerate(samplers):
        uniforms = numbers(model, 2, 4, seed=i)
        assert_same(engine.draw(sampler, uniforms), reference.draw(sampler, uniforms))


@pytest.mark.parametrize(
    ("name", "fused"),
    [("concat coupled", False), ("mix unet", False), pytest.param("mono dml, diagonal", True, marks=pytest.mark.slow)],
)
def test_a_state_goes_from_engine_to_engine(name, fused):
    """In the middle of a period, and it does not change with what comes after."""
    model = build(name, d_model=1 if fused else 8)
    reference, engine = engines(model, 2, fused)
    uniforms = numbers(model, 2, 6)
    engine.draw(Sampler(), uniforms[:, :3])
    saved = engine.state()
    first = engine.draw(Sampler(), uniforms[:, 3:])
    engine.restore(saved)
    assert_same(engine.state(), saved)
    again = engine.draw(Sampler(), uniforms[:, 3:])
    assert torch.equal(again.codes, first.codes)
    assert torch.equal(again.log_prob, first.log_prob)
    reference.restore(saved)
    assert_same(reference.draw(Sampler(), uniforms[:, 3:]), first)
    other = engine.like(2)
    other.restore(reference.state())
    assert_same(other.draw(Sampler(), uniforms), reference.draw(Sampler(), uniforms))


def test_blocks_and_batch_size_one_do_not_overwrite_what_was_returned(monkeypatch):
    monkeypatch.setattr(CudaGraphEngine, "BLOCK_FRAMES", 2)
    model = build("mono")
    reference, engine = engines(model, 1)
    drawn = engine.draw(Sampler(), numbers(model, 1, 7))
    kept = [x.clone() for x in drawn]
    hidden = engine.step(torch.randint(256, (1, 5, 1)))
    kept_hidden = hidden.clone()
    engine.step(torch.randint(256, (1, 5, 1)))
    engine.draw(Sampler(), numbers(model, 1, 7, seed=1))
    assert_same(list(drawn), kept)
    assert torch.equal(hidden, kept_hidden)
    assert_same(drawn, reference.draw(Sampler(), numbers(model, 1, 7)))


def test_it_needs_a_cuda_device_and_takes_no_experts(monkeypatch):
    with pytest.raises(EngineError, match=r"adaptive experts run on the CPU\. Use engine=auto"):
        Stream(small("experts"), 1, engine="cudagraph")
    model = build("mono", torch.float32)
    with pytest.raises(EngineError, match=r"engine=cudagraph needs a CUDA device.*is on cpu.*engine=auto"):
        Stream(model, 1, engine="cudagraph")
    parameter = next(model.parameters())
    monkeypatch.setattr(type(parameter), "device", torch.device("cuda"))
    assert resolve("cudagraph", model) is CudaGraphEngine
    assert resolve("auto", model).name == "reference"
    assert resolve("cudagraph", model) is CudaGraphEngine


def test_a_stream_runs_on_it(monkeypatch):
    monkeypatch.setattr(CudaGraphEngine, "check", classmethod(lambda cls, model: None))
    model = build("concat coupled", pad_len=2)
    monkeypatch.setattr(cudagraph, "_can_fuse", lambda: False)
    ours, reference = (Stream(model, 1, engine=name) for name in ("cudagraph", "reference"))
    prompt = torch.randint(256, (1, 7, 2))
    assert_same(ours.prefill(prompt), reference.prefill(prompt))
    alone, ours, reference = ours, ours.spread(2), reference.spread(2)
    frames = [list(stream.generate(12, Sampler(), [1, 2], frames_at_once=5)) for stream in (ours, reference)]
    assert_same(*frames)
    assert_same(ours.state(), reference.state())
    with pytest.raises(ValueError, match="another model, precision or batch size"):
        ours.restore(alone.state()._replace(random=ours.state().random))


def test_why_steps_are_not_fused_is_said(monkeypatch, caplog):
    def refuse():
        raise BackendError("backend=triton needs a C compiler")

    model = build("sum dml")
    monkeypatch.setattr(triton, "probe", refuse)
    engine = CudaGraphEngine(model, 1)
    assert "runs without fused steps" in caplog.text
    assert "needs a C compiler" in caplog.text
    assert engine._model is engine.model
    monkeypatch.setattr(triton, "probe", lambda: None)
    assert CudaGraphEngine(model, 1)._model is not model
