"""The memory estimate: without data it counts the bytes that a step with data makes, and it knows what grows."""

from contextlib import nullcontext

import pytest
import torch

from stereo_sashimi.commands import memory, memory_estimate
from stereo_sashimi.commands.cli import main
from stereo_sashimi.commands.memory_estimate import Load, MemoryTracker, estimate
from stereo_sashimi.experts.plan import ExpertsConfig
from stereo_sashimi.models.language_model_config import LanguageModelConfig
from stereo_sashimi.models.no_backbone import NoBackboneConfig
from stereo_sashimi.models.sashimi import SashimiConfig
from stereo_sashimi.nn import CategoricalHeadConfig, DMLHeadConfig, EmbeddingConfig, ExpertHeadConfig, S4DConfig
from stereo_sashimi.spec import AudioSpec

HEADS = {
    "dml": DMLHeadConfig("autoregressive"),
    "categorical": CategoricalHeadConfig("autoregressive"),
}


def config(channels: int = 2, bits: int = 8, head: str = "dml", **options) -> LanguageModelConfig:
    backbone = SashimiConfig(d_model=8, n_layers=1, pool=(2,), **options)
    return LanguageModelConfig(AudioSpec(44100, channels, bits), EmbeddingConfig(8), backbone, HEADS[head])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("head", "channels", "bits", "backend"),
    [("dml", 1, 8, "krylov"), ("dml", 2, 16, "reference"), ("categorical", 2, 8, "reference"),
     ("categorical", 1, 16, "krylov")],
)  # fmt: skip
def test_a_step_without_data_counts_what_a_real_step_makes(monkeypatch, head, channels, bits, backend):
    load = Load(2, 300, backend=backend, ranks=head == "categorical")
    without = estimate(config(channels, bits, head), load)
    monkeypatch.setattr(memory_estimate, "FakeTensorMode", nullcontext)
    real = estimate(config(channels, bits, head), load)
    # Every op makes tensors of the same sizes; only which constants are kept between ops can differ.
    assert without.peak == pytest.approx(real.peak, rel=0.01)
    assert (without.phase, without.parameters) == (real.phase, real.parameters)


@pytest.mark.parametrize("head", HEADS)
def test_the_parts_are_the_peak(head):
    found = estimate(config(head=head, unet=True, layer=S4DConfig(d_state=8)), Load(2, 500, copies=1))
    assert sum(found.parts.values()) == found.peak
    weights = 4 * found.parameters
    for part, sets in (("parameters", 1), ("moments", 2), ("copies of weights", 1)):
        # Blocks of 64 bytes, and buffers beside the parameters.
        assert sets * weights <= found.parts[part] < 1.3 * sets * weights


@pytest.mark.parametrize("backbone", [SashimiConfig(d_model=8, n_layers=1, pool=(2,)), NoBackboneConfig()])
def test_what_experts_say_is_counted(backbone):
    spec, head = AudioSpec(44100, 2, 16), ExpertHeadConfig()
    found = estimate(
        LanguageModelConfig(spec, EmbeddingConfig(8), backbone, head, experts=ExpertsConfig()), Load(2, 500)
    )
    # 65 numbers a channel and frame.
    assert found.peak > 4 * 2 * 500 * 2 * 65


@pytest.mark.slow
def test_what_takes_more():
    def peak(*size: int, **options) -> int:
        return estimate(config(), Load(*size, **options)).peak

    small, wide = peak(2, 400), peak(4, 400)
    assert small < min(wide, peak(2, 800))
    # Activations grow in proportion to the batch: two clips more cost what two clips cost.
    assert peak(6, 400) - wide == pytest.approx(wide - small, rel=0.05)
    assert peak(2, 400, precision="64-true") > 1.7 * small
    assert peak(2, 400, precision="bf16-mixed") != small
    assert peak(2, 400, cuda=True) > small, "blocks of 512 bytes"


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
def test_activation_checkpointing_keeps_one_tensor_a_block(head):
    frames = 2000
    model = LanguageModelConfig(AudioSpec(44100, 2, 8), EmbeddingConfig(8),
                                SashimiConfig(d_model=8, n_layers=4, pool=()), HEADS[head])  # fmt: skip
    plain, twice = (estimate(model, Load(1, frames, activation_checkpointing=on)) for on in (False, True))
    assert twice.peak < 0.6 * plain.peak
    # Eight blocks, their inputs, and a few tensors around them: (1, frames, 16) each.
    assert twice.parts["center"] <= 10 * frames * 16 * 4 < plain.parts["center"] / 4


@pytest.mark.slow
def test_checkpointing_is_offered_before_shorter_clips():
    model = config()
    peaks = [estimate(model, Load(1, 2000, activation_checkpointing=on)).peak for on in (True, False)]
    between = int(sum(peaks) / 2 * (1 + memory.HEAP))
    assert memory.remedy(model, Load(2, 2000), 0, between) == (
        "fits with loader.batch_size=1 trainer.accumulate_grad_batches=2 activation_checkpointing=true"
    )
    enough = int(peaks[1] * (1 + memory.HEAP))
    assert memory.remedy(model, Load(2, 2000), 0, enough).endswith("trainer.accumulate_grad_batches=2")
    shorter = memory.remedy(model, Load(1, 2000), 0, int(peaks[0] * 0.8))
    assert shorter.startswith("fits with activation_checkpointing=true dataset.sample_len=")


@pytest.mark.parametrize(
    ("load", "message"),
    [
        (Load(1, 100, precision="transformer-engine"), r"trainer\.precision 32-true, .*got 'transformer-engine'"),
        (Load(1, 100, backend="keops"), "backend=keops"),
        (Load(1, 100, backend="triton"), "backend=triton"),
    ],
)
def test_what_it_cannot_tell_is_refused(load, message):
    with pytest.raises(ValueError, match=message):
        estimate(config(), load)


def test_a_tracker_counts_a_storage_once_and_forgets_it():
    with MemoryTracker() as tracker:
        with tracker.in_part("a"):
            x = torch.zeros(100)
        y = x.view(10, 10)
        assert tracker.current == 448, "400 bytes in blocks of 64"
        assert dict(tracker.by_part) == {"a": 448}
        tracker.move(x, "b")
        assert tracker.by_part["b"] == 448
        del x
        assert tracker.current == 448
        del y
        assert tracker.current == 0
        assert tracker.peak == 448


SMALL = ("model=sashimi_tiny", "model.d_model=8", "model.n_layers=1", "dataset.sample_len=512", "loader.batch_size=4")


@pytest.mark.parametrize(
    "options",
    [
        ("dataset=folder", "task.metrics=[bpb]", "decoder=dml"),
        ("dataset=youtubemix",),
        ("experiment=audio/sashimi-sample", "trainer=ddp"),
        ("dataset=sc09", "callbacks=ema", "trainer.precision=bf16-mixed"),
    ],
    ids=["folder", "mono", "ddp", "ema"],
)
def test_any_config_is_described_without_data(composed, options):
    model, load = memory.describe(composed("train", *options, *SMALL))
    assert (load.batch_size, load.frames) == (4, 512)
    assert load.copies == (1 if {"trainer=ddp", "callbacks=ema"} & set(options) else 0)
    assert model.spec.n_channels == (2 if "experiment=audio/sashimi-sample" in options else 1)
    assert estimate(model, load).peak > 0


@pytest.mark.slow
def test_the_command_fits_or_says_what_would(capsys, monkeypatch):
    # The process of the tests grows from one call to the next; that of the command is fresh.
    monkeypatch.setattr(memory, "process_bytes", lambda: 400 * 2**20)
    words = ["experiment=audio/sashimi-sample", "trainer=cpu", *SMALL, "dataset.bits=8", "model.pool=[2]"]
    main("memory", [*words, "available=8"])
    out = capsys.readouterr().out
    assert out.endswith("fits\n")
    assert "up, level 0" in out
    assert "head" in out
    # Just below: a smaller batch is named, and with it the command is content.
    needed = float(next(line.split()[-2] for line in out.splitlines() if line.startswith("total")).replace(",", ""))
    limit = f"available={(needed - 5) / 1024}"
    with pytest.raises(SystemExit) as stopped:
        main("memory", [*words, limit])
    assert stopped.value.code == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("does not fit; fits with loader.batch_size=")
    main("memory", [*words, limit, *(word for word in last.split() if "=" in word)])
    with pytest.raises(SystemExit):
        main("memory", [*words, "available=0.01", "dataset.sample_len=256", "loader.batch_size=1"])
    assert "even one clip of 256 frames does not fit; try a smaller model.d_model" in capsys.readouterr().out


@pytest.mark.parametrize("word", ["available=much", "available=-1", "avialable=3"])
def test_bad_words_are_refused(word, capsys):
    with pytest.raises(SystemExit) as stopped:
        main("memory", [word])
    assert stopped.value.code == 1
    assert "available" in capsys.readouterr().err or word.startswith("avi")
