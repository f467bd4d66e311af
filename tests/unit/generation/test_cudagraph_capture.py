"""What CudaGraphEngine captures never waits for the device or brings it anything, and takes few kernels.

Tensors are on the device `meta`, which has no numbers to read; `Captured` looks at every operation.
"""

import contextlib
from collections import Counter

import pytest
import torch
from small_models import CASES, numbers, small
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from stereo_sashimi.distributions.sampler import Sampler
from stereo_sashimi.generation.engines.cuda_graph import CudaGraphEngine
from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.models.language_model_config import LanguageModelConfig
from stereo_sashimi.nn.freeze import freeze
from stereo_sashimi.nn.heads.head import DMLHeadConfig
from stereo_sashimi.spec import AudioSpec

QUICK = ("mono", "concat coupled", "none", "one level")


class Captured(TorchDispatchMode):
    """What CUDA would refuse in a capture raises; kernels are counted: views and empty tensors launch none."""

    def __init__(self) -> None:
        super().__init__()
        self.launches: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = str(function)
        assert "_local_scalar_dense" not in name, "a number is read back"
        out = function(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, torch.Tensor)]
        for tensor in tensors:
            assert tensor.device.type == "meta", f"{name} brings numbers from the host"
        made = [x for x in tree_leaves(out) if isinstance(x, torch.Tensor)]
        runs = function._schema.is_mutable or any(x.numel() for x in made)
        if runs and not function.is_view and not any(word in name for word in ("empty", "unsafe_view", "detach")):
            self.launches[name] += 1
        return out


class CapturedWork:
    """Stands in for `CudaGraphs`: runs the work under `Captured`, and no replay."""

    def __init__(self, device) -> None:
        self.launches: list[int] = []

    def warm_up(self, work):
        pass

    def capture(self, work):
        with Captured() as captured:
            work()
        self.launches.append(captured.launches.total())
        return lambda: None


@pytest.fixture
def on_meta(monkeypatch):
    monkeypatch.setattr(CudaGraphEngine, "graphs", CapturedWork)
    autocast = torch.autocast
    # It knows no device `meta`.
    monkeypatch.setattr(
        torch,
        "autocast",
        lambda device_type, *args, **fields: (
            contextlib.nullcontext() if device_type == "meta" else autocast(device_type, *args, **fields)
        ),
    )


def launches(model: LanguageModel, fused: bool, *samplers: Sampler) -> list[int]:
    """Kernels of each frame of a period, fed and then drawn with each sampler."""
    engine, n_frames = CudaGraphEngine(model.to("meta"), 1, fused), model.backbone.stride
    engine.step(torch.zeros(1, n_frames, model.spec.n_channels, dtype=torch.int64, device="meta"))
    for sampler in samplers:
        engine.draw(sampler, numbers(model, 1, n_frames).to("meta"))
    return engine._graphs.launches


@pytest.mark.usefixtures("on_meta")
@pytest.mark.parametrize(
    ("case", "fused"),
    [*(pytest.param(case, False, marks=[] if case in QUICK else pytest.mark.slow)
       for case in CASES if "experts" not in case),
     *((case, True) for case in ("concat coupled", "sum dml", "none"))],
)  # fmt: skip
def test_nothing_captured_waits_for_the_device_or_brings_it_anything(case, fused):
    """In any phase, drawn or fed."""
    model = freeze(small(case).double())
    others = [Sampler(0.5, top_k=3, top_p=0.9)] if model.head.n_uniforms == 1 else []
    counts = launches(model, fused, Sampler(), Sampler(0.0), *others)
    assert len(counts) == (3 + len(others)) * model.backbone.stride
    assert min(counts) > 10


@pytest.mark.usefixtures("on_meta")
@pytest.mark.parametrize(
    ("line", "words"),
    [
        (lambda x: x.sum().item(), "read back"),
        (lambda x: x + torch.tensor(2.0), "from the host"),
        (lambda x: x[x > 0], "nonzero"),
    ],
)
def test_that_would_be_noticed(line, words, monkeypatch):
    model = freeze(small("mono").double())
    sample = type(model.head)._sample_channel

    def changed(self, params, *rest):
        line(params)
        return sample(self, params, *rest)

    monkeypatch.setattr(type(model.head), "_sample_channel", changed)
    with pytest.raises((AssertionError, NotImplementedError), match=words):
        launches(model, False, Sampler())


@pytest.mark.slow
@pytest.mark.usefixtures("on_meta")
@pytest.mark.parametrize("coupling", [pytest.param("independent", marks=pytest.mark.long), "autoregressive"])
def test_a_frame_of_the_stereo_dml_model_takes_few_kernels(coupling):
    """4,000 frames/s are 250 us a frame, and a kernel of a graph takes at least 1.2: about 200 kernels."""
    model = freeze(LanguageModelConfig(AudioSpec(44100, 2, 16), decoder=DMLHeadConfig(coupling)).build())
    fused, plain = (launches(model, fused, Sampler())[16:] for fused in (True, False))
    print(f"{coupling}: fused {fused}, mean {sum(fused) / 16}; plain {plain}, mean {sum(plain) / 16}")
    assert len(fused) == 16
    assert sum(fused) / 16 <= 150
    assert sum(plain) / sum(fused) > 3
