"""Averaged weights: what is validated, saved, loaded and sampled is the average; training goes on without it."""

import json
import re

import pytest
import torch
from pytorch_lightning.callbacks import Callback
from running import DROPOUT, SIX_STEPS, last_of, saved

import stereo_sashimi
from stereo_sashimi.generation.sampling import blocks
from stereo_sashimi.tasks import samples

pytestmark = pytest.mark.slow

DECAY = 0.6
OPTIONS = (*SIX_STEPS, DROPOUT)
TEST = ("trainer.limit_test_batches=1", "train.test=true")
EMA = ("callbacks=ema", "callbacks.samples=null", f"callbacks.ema.decay={DECAY}")


class Weights(Callback):
    """The raw weights behind every step, and those that each validation and the test have."""

    def __init__(self):
        self.raw, self.validated, self.tested = [], [], None

    @staticmethod
    def of(pl_module):
        return {name: p.detach().clone() for name, p in pl_module.named_parameters()}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.raw.append(self.of(pl_module))

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        if batch_idx == 0:
            self.validated.append(self.of(pl_module))

    def on_test_batch_start(self, trainer, pl_module, *_):
        self.tested = self.of(pl_module)


def average(raw: list[dict], start: int = 0, every: int = 1) -> dict[str, torch.Tensor]:
    """By hand: the first weights, then decay * average + (1 - decay) * weights."""
    chosen = [w for i, w in enumerate(raw) if i >= start and i % every == 0]
    mean = {name: p.clone() for name, p in chosen[0].items()}
    for weights in chosen[1:]:
        mean = {name: DECAY * mean[name] + (1 - DECAY) * weights[name] for name in mean}
    return mean


def assert_close(found: dict, expected: dict) -> None:
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-6, msg=name)


def assert_equal(found: dict, expected: dict) -> None:
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def differ(a: dict, b: dict) -> bool:
    return any(not torch.equal(a[name], b[name]) for name in b)


def test_training_is_the_same_and_everything_else_has_the_average(train, tmp_path, capsys):
    plain, watch = Weights(), Weights()
    # Six steps an epoch; the last two are validated at the end of the run.
    train(*OPTIONS, "trainer.max_steps=8", watchers=[plain])
    result = train(*OPTIONS, *EMA, *TEST, "trainer.max_steps=8", "train.validate_before=true", run=tmp_path / "ema",
                   watchers=[watch])  # fmt: skip
    assert [torch.equal(a[n], b[n]) for a, b in zip(plain.raw, watch.raw, strict=True) for n in a].count(False) == 0
    assert result["ema"] == DECAY
    assert re.search(rf"^optim .* ema {DECAY}$", capsys.readouterr().out, re.MULTILINE)
    # Before training, at step six, at the end, and of the best weights afterwards: those of the end.
    before, at_six, at_the_end, after = watch.validated
    assert_close(at_six, average(watch.raw[:6]))
    assert_close(at_the_end, average(watch.raw))
    assert_equal(after, at_the_end)
    assert_equal(watch.tested, at_the_end)
    assert differ(before, at_six)
    for name, steps in (("best", 8), ("last", 8)):
        content = saved(tmp_path / "ema", name)
        assert_close(content["state_dict"], average(watch.raw[:steps]))
        assert_equal(content["current_model_state"], watch.raw[steps - 1])
        loaded = {f"model.{n}": p for n, p in stereo_sashimi.load(last_of(tmp_path / "ema", name)).named_parameters()}
        assert_equal(loaded, {n: content["state_dict"][n] for n in loaded})
    assert json.loads((tmp_path / "ema" / "run.json").read_text())["ema"] == DECAY


def test_when_it_is_updated_and_a_test_without_validation(train, tmp_path):
    watch = Weights()
    train(*OPTIONS, *EMA, *TEST, "callbacks.ema.update_starting_at_step=2", "callbacks.ema.update_every_n_steps=3",
          "trainer.max_steps=8", "trainer.check_val_every_n_epoch=9", watchers=[watch])  # fmt: skip
    assert_close(saved(tmp_path / "run")["state_dict"], average(watch.raw, start=2, every=3))
    assert_close(watch.tested, average(watch.raw, start=2, every=3))


def test_before_the_first_update_everything_has_the_weights(train, tmp_path):
    watch = Weights()
    train(*OPTIONS, *EMA, "callbacks.ema.update_starting_at_step=100", "trainer.max_steps=8", watchers=[watch])
    assert_equal(watch.validated[0], watch.raw[5])
    for name, steps in (("best", 8), ("last", 8)):
        content = saved(tmp_path / "run", name)
        assert_equal(content["state_dict"], watch.raw[steps - 1])
        assert_equal(content["current_model_state"], watch.raw[steps - 1])


def test_samples_are_drawn_from_the_average(train, tmp_path, monkeypatch):
    drawn = []

    def watched(model, *arguments):
        drawn.append({f"model.{n}": p.detach().clone() for n, p in model.named_parameters()})
        return blocks(model, *arguments)

    monkeypatch.setattr(samples, "blocks", watched)
    watch = Weights()
    train(*OPTIONS, "callbacks=ema", f"callbacks.ema.decay={DECAY}", "callbacks.samples.seconds=0.0005",
          "callbacks.samples.every_n_validations=1", "trainer.max_steps=7", watchers=[watch])  # fmt: skip
    # At step six, and at the end.
    assert len(drawn) == 2
    assert_close(drawn[0], average(watch.raw[:6]))
    assert_close(drawn[1], average(watch.raw))
    # And training went on without it.
    assert differ(watch.raw[5], drawn[0])
    assert differ(watch.raw[6], watch.raw[5])


def test_it_cannot_end_with_a_resume(train, tmp_path):
    train(*OPTIONS, *EMA, "trainer.max_steps=2", run=tmp_path / "a")
    last = last_of(tmp_path / "a")
    wanted = rf"callbacks\.ema\.decay={DECAY}\); this run has {{}}\. Resume with callbacks=ema"
    with pytest.raises(ValueError, match=wanted.format("none")):
        train(*OPTIONS, f"checkpoint={last}")
    with pytest.raises(ValueError, match=wanted.format(r"0\.5")):
        train(*OPTIONS, *EMA, "callbacks.ema.decay=0.5", f"checkpoint={last}")


@pytest.mark.filterwarnings("ignore:The checkpoint was not created with WeightAveraging")
def test_it_can_begin_with_a_resume(train, tmp_path):
    train(*OPTIONS, "trainer.max_steps=2", run=tmp_path / "a")
    watch = Weights()
    train(*OPTIONS, *EMA, "trainer.max_steps=4", f"checkpoint={last_of(tmp_path / 'a')}",
          watchers=[watch])  # fmt: skip
    assert_close(saved(tmp_path / "run")["state_dict"], average(watch.raw))
