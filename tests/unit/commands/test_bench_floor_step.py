"""The floor of generating a frame: counts worked out by hand, counts of what really runs, ceilings from given times."""

import pytest
import torch
from benchmarks import floor_step
from benchmarks.floor import Work
from benchmarks.floor_step import StepCeilings, step_work, total
from torch.utils.flop_counter import FlopCounterMode

from stereo_sashimi.generation.stream import Stream
from stereo_sashimi.models import SashimiConfig
from stereo_sashimi.models.language_model import LanguageModel, LanguageModelConfig
from stereo_sashimi.nn import CategoricalHeadConfig, DMLHeadConfig, EmbeddingConfig, S4Config, S4DConfig
from stereo_sashimi.nn.freeze import freeze
from stereo_sashimi.spec import AudioSpec

CPU = torch.device("cpu")
FLOAT, COMPLEX = 4, 8
COUPLED_DML, COUPLED = DMLHeadConfig("autoregressive"), CategoricalHeadConfig("autoregressive")


def frozen(channels: int = 1, decoder=None, merge: str = "concat", bits: int = 8, **options) -> LanguageModel:
    options = {"layer": S4Config(d_state=4), "pool": (2,)} | options
    backbone = SashimiConfig(d_model=8, n_layers=1, **options)
    decoder = CategoricalHeadConfig() if decoder is None else decoder
    config = LanguageModelConfig(AudioSpec(44100, channels, bits), EmbeddingConfig(8, merge), backbone, decoder)
    model = freeze(config.build())
    assert isinstance(model, LanguageModel)
    return model


@pytest.mark.parametrize(
    ("layer", "fields", "multiply_adds"),
    [(S4Config(d_state=4), 5, 12), (S4DConfig(d_state=4), 3, 8)],
    ids=["s4", "s4d"],
)
@pytest.mark.parametrize("batch", [1, 3])
def test_a_tiny_model_by_hand(layer, fields, multiply_adds, batch):
    work = step_work(frozen(layer=layer), batch)
    # Two modes a channel: 16 channels in the centre, due every other frame, and 8 in the level above.
    low, high = 2 * 16, 2 * 8
    assert work["ssm"].flops == 2 * batch * (multiply_adds * (low / 2 + high) + 16 / 2 + 8)
    system = COMPLEX * fields * (low / 2 + high) + FLOAT * (16 / 2 + 8)
    state = 2 * COMPLEX * batch * (low / 2 + high)
    assert work["ssm"].bytes == system + state
    pools = 2 * 16 * 16
    centre, top = 16 * 32 + 2 * 16 * 32, 8 * 16 + 2 * 8 * 16
    assert work["mixing"].flops == 2 * batch * ((pools + centre) / 2 + top)
    biases = (16 + 16 + 32 + 32 + 16) / 2 + 16 + 16 + 8
    norms = 2 * 2 * 16 / 2 + 2 * 2 * 8 + 2 * 8
    assert work["mixing"].bytes == FLOAT * ((pools + centre) / 2 + top + biases + norms)
    assert work["embedding"] == (0, FLOAT * batch * 8)
    assert work["head"] == (2 * batch * 8 * 256, FLOAT * (8 * 256 + 256))


@pytest.mark.parametrize(
    "options",
    [
        {"pool": (2, 3)},
        {"pool": ()},
        {"pool": (2, 2), "unet": True, "pool_weight_norm": True, "norm": "scalar"},
        {"channels": 2, "decoder": COUPLED},
        {"channels": 2, "decoder": COUPLED_DML, "merge": "sum"},
        {"channels": 2, "decoder": DMLHeadConfig(), "merge": "none", "bits": 16},
        {"channels": 2, "merge": "mix"},
    ],
    ids=["levels", "one-level", "unet", "coupled", "dml", "none", "mix"],
)
def test_products_are_those_that_run(options):
    model = frozen(**options)
    stream = Stream(model, 2, "reference")
    stride = model.backbone.stride
    with FlopCounterMode(display=False) as counter:
        list(stream.generate(2 * stride))
    work = step_work(model, 2)
    counted = sum(work[room].flops for room in ("embedding", "mixing", "head"))
    # A recurrence is no matrix product.
    assert counter.get_total_flops() == pytest.approx(2 * stride * counted)


def test_weights_count_once_and_states_for_every_stream():
    model = frozen(pool=())
    one, three = (total(step_work(model, batch).values()) for batch in (1, 3))
    state = sum(x.nbytes for x in model.initial_state(1).layers if x is not None)
    row = FLOAT * 8
    assert three.bytes - one.bytes == 2 * (2 * state + row)
    assert three.flops == 3 * one.flops
    tables = sum(p.nbytes for p in model.embedding.parameters())
    weights = sum(p.nbytes for p in (*model.parameters(), *model.buffers())) - tables
    assert one.bytes == weights + 2 * state + row


def test_separate_channels_share_weights():
    mono, stereo = step_work(frozen(), 2), step_work(frozen(2, merge="none"), 1)
    assert stereo == mono


def test_earlier_channels_are_looked_up_in_one_row():
    coupled, alone = step_work(frozen(2, COUPLED), 3)["head"], step_work(frozen(2), 3)["head"]
    mixer = 2 * (16 * 16 + 16)
    assert coupled.bytes - alone.bytes == FLOAT * (mixer + 3 * 16)


def test_a_floor_is_the_slower_of_the_two():
    ceilings = StepCeilings(read_bytes_per_s=10, flops_per_s=100)
    assert ceilings.seconds(Work(1000, 50)) == 10
    assert ceilings.seconds(Work(1000, 200)) == 20


def test_reads_are_the_faster_kind_over_the_bytes_that_were_asked_for(monkeypatch):
    monkeypatch.setattr(floor_step, "READ_AT_ONCE", 3 * 4 * 10_000)
    calls = []

    def timed(work, device, *, warmup, repeats):
        calls.append(work())
        return [4.0, 3.0] if len(calls) == 1 else [2.0, 5.0]

    monkeypatch.setattr(floor_step, "repeated", timed)
    assert floor_step.fastest_read(CPU, 4 * 10_000) == 3 * 4 * 10_000 / 2
    sums, products = calls
    assert [result.item() for result in sums] == [10_000] * 3
    assert [result.tolist() for result in products] == [[100.0] * 100] * 3


def test_very_little_is_read_too():
    assert floor_step.fastest_read(CPU, 0, repeats=1) > 0
