"""The floor of a step: counts that were worked out by hand, and ceilings from given times."""

import pytest
import torch
from benchmarks import floor
from benchmarks.floor import Ceilings, Work, head_flops, least_work, real_fft_flops, step_shapes
from benchmarks.layers import without_convolution
from torch.utils.flop_counter import FlopCounterMode

from stereo_sashimi.models import SashimiConfig
from stereo_sashimi.models.language_model import LanguageModelConfig
from stereo_sashimi.nn import CategoricalHeadConfig, DMLHeadConfig, EmbeddingConfig, S4Config, S4DConfig
from stereo_sashimi.ops import s4_response as backend
from stereo_sashimi.spec import AudioSpec

CPU = torch.device("cpu")
BATCH, FRAMES = 2, 16


def config(channels: int = 1, decoder=None, merge: str = "concat", **options) -> LanguageModelConfig:
    options = {"layer": S4Config(d_state=4)} | options
    backbone = SashimiConfig(d_model=8, n_layers=1, pool=(2,), **options)
    decoder = CategoricalHeadConfig() if decoder is None else decoder
    return LanguageModelConfig(AudioSpec(44100, channels, 8), EmbeddingConfig(8, merge), backbone, decoder)


def work_of(config: LanguageModelConfig, activation_bytes: int = 4) -> dict[str, Work]:
    shapes = step_shapes(config, BATCH, FRAMES)
    return least_work(config.build(), shapes, BATCH, FRAMES, activation_bytes)


@pytest.mark.parametrize(
    ("described", "weights"),
    [
        (config(), 8 * 256),
        (config(2), 2 * 16 * 256),
        (config(2, DMLHeadConfig("autoregressive")), 2 * 16 * 30 + 16 * 10),
        # Hidden features of the second channel are mixed by two square maps.
        (config(2, CategoricalHeadConfig("autoregressive")), 2 * 16 * 256 + 2 * 16 * 16),
        # One head, once for each channel.
        (config(2, DMLHeadConfig(), merge="none"), 2 * 8 * 30),
    ],
    ids=["mono", "stereo", "dml", "coupled", "shared"],
)
def test_head_flops_are_three_products_of_every_map(described, weights):
    rows = BATCH * FRAMES
    model = described.build()
    assert head_flops(model, rows) == 3 * 2 * rows * weights
    hidden = torch.randn(BATCH * model.n_sequences, FRAMES, model.backbone.width, requires_grad=True)
    codes = torch.zeros(BATCH, FRAMES, described.spec.n_channels, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        model.head.parameters_for(hidden, model.fold(codes)).sum().backward()
    assert counter.get_total_flops() == head_flops(model, rows)


def test_shapes_and_products_of_the_backbone():
    shapes = step_shapes(config(), BATCH, FRAMES)
    # The centre first: half the frames, twice the width.
    assert shapes.layers == [(2, 8, 16), (2, 16, 8)]
    pools, centre, top = 2 * 16 * 16, 16 * 32 + 2 * 16 * 32, 8 * 16 + 2 * 8 * 16
    assert shapes.mixing_flops == 3 * 2 * (16 * (pools + centre) + 32 * top)


def test_separate_channels_are_sequences_of_their_own():
    shapes = step_shapes(config(2, merge="none"), BATCH, FRAMES)
    assert shapes.layers == [(4, 8, 16), (4, 16, 8)]
    assert shapes.mixing_flops == 2 * step_shapes(config(), BATCH, FRAMES).mixing_flops


@pytest.mark.parametrize("layer", [S4Config(d_state=4), S4DConfig(d_state=4)], ids=["s4", "s4d"])
def test_work_of_the_kernels(layer):
    kernel = work_of(config(layer=layer))["kernel"]
    # Per channel and frame one multiply-add for each of 4 states, in three products.
    assert kernel.flops == 3 * 2 * 4 * (16 * 8 + 8 * 16)
    model = config(layer=layer).build()
    parameters = sum(p.numel() for name, p in model.named_parameters() if ".ssm." in name)
    assert kernel.bytes == 4 * (2 * (16 * 8 + 8 * 16) + 3 * parameters)


def test_work_of_the_convolutions():
    assert real_fft_flops(1024) == 5 * 1024 * 10 / 2
    convolution = work_of(config())["convolution"]
    # Lengths 8 and 16 need transforms of 15 and 32, spectra of 8 and 17.
    transforms = real_fft_flops(15) * (4 * 2 + 2) * 16 + real_fft_flops(32) * (4 * 2 + 2) * 8
    assert convolution.flops == pytest.approx(transforms + 3 * 6 * (8 * 2 * 16 + 17 * 2 * 8))
    assert convolution.bytes == 4 * 2 * (2 * 2 * (8 * 16 + 16 * 8) + (16 * 8 + 8 * 16))
    half = work_of(config(), activation_bytes=2)["convolution"]
    assert half.bytes == 2 * 2 * 2 * 2 * (8 * 16 + 16 * 8) + 4 * 2 * (16 * 8 + 8 * 16), "kernels stay in float32"


def test_work_of_mixing_head_and_optimiser():
    model = config(2).build()
    work = work_of(config(2))
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    assert work["optimiser"] == (0, (4 + 3) * 4 * sum(count.values()))
    samples, features = BATCH * FRAMES * 2, BATCH * FRAMES * 16
    assert work["head"].bytes == 4 * (2 * (features + samples) + 3 * count["head"]) + 8 * samples
    ssm = sum(p.numel() for name, p in model.named_parameters() if ".ssm." in name)
    # Two layers, each with as many numbers in as out.
    exchanged = 2 * (2 * 8 * 32 + 2 * 16 * 16)
    assert work["channel_mixing"].bytes == (
        4 * (2 * (exchanged + features) + count["embedding"] + 3 * (count["backbone"] - ssm)) + 8 * samples
    )


def test_a_floor_is_the_slower_of_the_two():
    ceilings = Ceilings(copy_bytes_per_s=10, flops_per_s=100)
    assert ceilings.seconds(Work(1000, 50)) == 10
    assert ceilings.seconds(Work(1000, 200)) == 20


def test_ceilings_are_the_best_of_each_kind(monkeypatch):
    monkeypatch.setattr(floor, "COPIED", {"cpu": 1000})
    monkeypatch.setattr(floor, "SQUARES", {"cpu": (4, 8)})
    calls = []

    def timed(work, device, *, warmup, repeats):
        result = work()
        calls.append((result.dtype, tuple(result.shape)))
        return [4.0, 2.0]

    monkeypatch.setattr(floor, "repeated", timed)
    found = floor.measure_ceilings(CPU, (torch.float32, torch.bfloat16), (10, 3, 16), repeats=2)
    assert found.copy_bytes_per_s == 2 * 1000 / 2
    assert found.flops_per_s == 2 * 8**3 / 2
    shapes = [(4, 4), (8, 8), (10, 16)]
    assert calls[1:] == [(dtype, shape) for dtype in (torch.float32, torch.bfloat16) for shape in shapes]


def test_the_product_of_the_head_is_bounded(monkeypatch):
    monkeypatch.setattr(floor, "COPIED", {"cpu": 1000})
    monkeypatch.setattr(floor, "SQUARES", {"cpu": ()})
    monkeypatch.setattr(floor, "LARGEST_PRODUCT", 100)
    monkeypatch.setattr(floor, "repeated", lambda work, device, **_: [float(work().shape[0])])
    found = floor.measure_ceilings(CPU, (torch.float32,), (1000, 3, 20))
    assert found.flops_per_s == 2 * 5 * 3 * 20 / 5, "5 rows of 20"


def test_convolutions_are_taken_out_and_put_back(monkeypatch):
    model = config().build("krylov")
    codes = torch.zeros(1, FRAMES, 1, dtype=torch.int64)
    before = model.hidden_for(codes)
    with monkeypatch.context() as patch, without_convolution(model):
        patch.setitem(backend.KERNELS, "krylov", None)
        hidden = model.hidden_for(codes)
        hidden.sum().backward()
    assert hidden.shape == before.shape
    assert not torch.equal(hidden, before)
    assert {name for name, p in model.backbone.named_parameters() if p.grad is None} == {
        name for name, _ in model.backbone.named_parameters() if ".ssm." in name
    }
    assert torch.equal(model.hidden_for(codes), before)
