"""`train.on_nan`: a loss or gradient that is not finite never reaches the weights, and the error says where it was."""

import json
import re

import pytest
import torch
from pytorch_lightning.callbacks import Callback
from running import SIX_STEPS, last_of, saved

from stereo_sashimi.tasks import AutoregressiveTask
from stereo_sashimi.tasks import nan_guard as nonfinite
from stereo_sashimi.tasks.nan_guard import NonFiniteError

OPTIONS = (*SIX_STEPS, "trainer.max_steps=5")
EVERY = ("callbacks.last.every_n_train_steps=1",)


class Watch(Callback):
    """Optimizer state and weights behind each batch, and which clips it had."""

    def __init__(self):
        self.weights, self.moments, self.clips, self.rates = [], [], [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.weights.append({n: p.detach().clone() for n, p in pl_module.named_parameters()})
        states = trainer.optimizers[0].state.values()
        self.moments.append([v.clone() for state in states for v in state.values()])
        self.clips.append(batch.clips.tolist())
        self.rates.append(trainer.optimizers[0].param_groups[-1]["lr"])


@pytest.fixture
def spoil(monkeypatch):
    """`spoil(batches, value)`: the loss of these batches, counted from 0, is `value` times what it is."""

    def at(batches, value=float("nan")):
        step, count = AutoregressiveTask.training_step, iter(range(10**6))

        def spoiled(self, batch, batch_idx):
            loss = step(self, batch, batch_idx)
            return loss * value if next(count) in batches else loss

        monkeypatch.setattr(AutoregressiveTask, "training_step", spoiled)

    return at


class BadGradient(Callback):
    """One infinite gradient at a step, under a finite loss."""

    def __init__(self, step):
        self.step = step

    def on_after_backward(self, trainer, pl_module):
        if trainer.global_step == self.step:
            next(pl_module.parameters()).grad.view(-1)[-1] = float("inf")


def equal(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_stop_names_step_files_and_the_last_good_state(train, tmp_path, stereo_folder, spoil):
    spoil({3})
    watch = Watch()
    with pytest.raises(NonFiniteError) as caught:
        train(*OPTIONS, *EVERY, watchers=[watch])
    message = str(caught.value).splitlines()
    assert message[0] == "step 4: the loss is nan; nothing was changed by it."
    path = stereo_folder / "train" / "train.wav"
    places = re.fullmatch(rf"  {re.escape(str(path))} at (\S+) s \(frame (\d+)\), (\S+) s \(frame (\d+)\)", message[1])
    assert places is not None, message
    # Which clips the fourth batch has, an undisturbed run tells.
    other = Watch()
    train(*OPTIONS, "train.on_nan=skip", run=tmp_path / "other", watchers=[other])
    assert [int(places[2]), int(places[4])] == sorted(64 * clip for clip in other.clips[3])
    assert float(places[3]) == pytest.approx(int(places[4]) / 44100, abs=0.01)
    last = last_of(tmp_path / "run")
    assert f"last good state (step 3) with checkpoint={last} and trainer.gradient_clip_val=1.0" in message[2]
    assert "train.on_nan=skip" in message[2]
    assert "lower optimizer.lr" in message[3]
    content = saved(tmp_path / "run")
    assert content["global_step"] == 3
    assert all(torch.equal(content["state_dict"][n], w) for n, w in watch.weights[2].items())
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "failed"
    # What the message says works.
    again = train(*OPTIONS, f"checkpoint={last}", "train.on_nan=skip", "trainer.gradient_clip_val=1.0",
                  run=tmp_path / "again")  # fmt: skip
    assert again["steps"] == 5


@pytest.mark.parametrize("bad", ["loss", "gradient"])
def test_skip_leaves_the_step_out(train, tmp_path, capsys, spoil, bad):
    watch = Watch()
    watchers = [watch]
    if bad == "loss":
        spoil({2}, float("inf"))
    else:
        watchers.append(BadGradient(2))
    result = train(*OPTIONS, "train.on_nan=skip", "trainer.gradient_clip_val=1.0", watchers=watchers)
    # Neither weights nor moments nor the step count of AdamW changed in the third step; the schedule went on.
    assert equal(watch.weights[1].values(), watch.weights[2].values())
    assert equal(watch.moments[1], watch.moments[2])
    assert not equal(watch.weights[2].values(), watch.weights[3].values())
    assert len(set(watch.rates)) > 3
    assert all(bool(w.isfinite().all()) for w in watch.weights[-1].values())
    assert result["steps"] == 5
    assert result["skipped_steps"] == 1
    what = "the loss is inf" if bad == "loss" else "a gradient is not finite"
    lines = [line for line in capsys.readouterr().out.splitlines() if "skipped" in line]
    assert len(lines) == 1
    assert lines[0].startswith(f"step 3 skipped: {what}; ")
    assert "train.wav at" in lines[0]
    assert saved(tmp_path / "run")["callbacks"]["NonFiniteGuard"] == {"skipped": 1, "consecutive": 0}


def test_accumulated_gradients_are_left_out_as_a_whole(train, spoil):
    spoil({2})
    watch = Watch()
    result = train(*OPTIONS, "train.on_nan=skip", "trainer.accumulate_grad_batches=2", "trainer.max_steps=3",
                   watchers=[watch])  # fmt: skip
    # Batches 2 and 3 make the second step, of which only the first is bad.
    assert equal(watch.weights[1].values(), watch.weights[3].values())
    assert not equal(watch.weights[3].values(), watch.weights[5].values())
    assert result["skipped_steps"] == 1


def test_only_the_bad_batch_of_a_step_is_named(train, spoil):
    spoil({3})
    watch = Watch()
    with pytest.raises(NonFiniteError) as caught:
        train(*OPTIONS, "trainer.accumulate_grad_batches=2", watchers=[watch])
    frames = [int(frame) for frame in re.findall(r"frame (\d+)", str(caught.value))]
    assert len(frames) == 2
    assert not {frame // 64 for frame in frames} & set(watch.clips[2])
    assert "Nothing was saved before it" in str(caught.value)


def test_skipping_has_an_end(train, spoil, monkeypatch):
    monkeypatch.setattr(nonfinite, "MAX_CONSECUTIVE", 3)
    spoil({0, 2, 3, 4})
    with pytest.raises(NonFiniteError, match="step 5: the loss is nan; it is the 3th step in a row"):
        train(*OPTIONS, "train.on_nan=skip")


def test_a_finite_run_is_as_it_was(train, tmp_path, monkeypatch):
    # The guard multiplies and looks, and changes no bit.
    with_guard, without = Watch(), Watch()
    train(*OPTIONS, watchers=[with_guard])
    for hook in ("on_before_backward", "on_before_optimizer_step"):
        monkeypatch.setattr(nonfinite.NonFiniteGuard, hook, lambda *_: None)
    train(*OPTIONS, run=tmp_path / "b", watchers=[without])
    assert equal(with_guard.weights[-1].values(), without.weights[-1].values())
