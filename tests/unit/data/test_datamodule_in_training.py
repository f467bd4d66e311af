"""AudioDataModule inside Lightning's fit loop: epochs, chunks, and resuming at any point with the same clips."""

import warnings
from itertools import chain

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from tracks import module

from stereo_sashimi.data.split import DataError


class Recorder(pl.LightningModule):
    """Trains one number and writes down which clips each step saw."""

    def __init__(self, fail_at=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.steps: list[list[int]] = []
        self.epochs: list[int] = []
        self.validated: list[list[int]] = []
        self.fail_at = fail_at

    def training_step(self, batch, batch_idx):
        if self.global_step == self.fail_at:
            raise InterruptedError("pulled the plug")
        self.steps.append(batch.clips.tolist())
        return self.weight

    def on_validation_epoch_start(self):
        self.validated.append([])

    def validation_step(self, batch, batch_idx):
        self.validated[-1] += batch.clips.tolist()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Save(Callback):
    """Saves when a hook has been called at a global step, and nowhere else."""

    def __init__(self, path, hook, step):
        def save(trainer, *_, **__):
            if trainer.global_step == step and not trainer.sanity_checking and not path.exists():
                trainer.save_checkpoint(path)

        setattr(self, hook, save)


def fit(folder, recorder=None, ckpt=None, callbacks=(), options=None, **trainer_options):
    recorder = recorder or Recorder()
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=list(callbacks),
        **{"max_epochs": 5, "num_sanity_val_steps": 1} | trainer_options,
    )
    data = module(folder, **{"train_chunk_size": 4, "batch_size": 2, "val_chunk_size": 3} | (options or {}))
    trainer.fit(recorder, data, ckpt_path=ckpt, weights_only=True if ckpt else None)
    return recorder


def test_epochs_walk_the_chunks_in_turn(folder):
    recorder = fit(folder)
    per_epoch = [recorder.steps[0:2], recorder.steps[2:4], recorder.steps[4:5], recorder.steps[5:7], recorder.steps[7:]]
    expected = [range(0, 4), range(4, 8), range(8, 10), range(0, 4), range(4, 8)]
    assert [sorted(chain.from_iterable(steps)) for steps in per_epoch] == [list(chunk) for chunk in expected]
    # Validation follows every epoch, also the shorter one, always with the same clips.
    assert len(recorder.validated) == 1 + 5
    assert recorder.validated[1:] == [recorder.validated[1]] * 5


# Steps of an epoch: 2, 2, 1, 2, 2. So 3 is inside epoch 1, 4 and 5 are ends of epochs.
HOOKS = ["on_train_batch_end", "on_validation_end", "on_train_epoch_end"]


@pytest.mark.parametrize("validation", [{}, {"limit_val_batches": 0}, {"check_val_every_n_epoch": 2}])
@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_a_resumed_run_sees_the_same_clips(folder, tmp_path, hook, step, validation):
    path = tmp_path / "saved.ckpt"
    straight = fit(folder, callbacks=[Save(path, hook, step)], **validation)
    if not path.exists():
        assert hook != "on_train_batch_end", "the other hooks only run at the end of some epochs"
        return
    resumed = fit(folder, ckpt=path, **validation)
    assert straight.steps[:step] + resumed.steps == straight.steps


@pytest.mark.parametrize("hook", HOOKS)
def test_a_resume_after_the_short_chunk(folder, tmp_path, hook):
    path = tmp_path / "saved.ckpt"
    straight = fit(folder, callbacks=[Save(path, hook, 5)])
    # After on_train_batch_end Lightning counts an empty epoch here, hence 6.
    resumed = fit(folder, ckpt=path, max_epochs=5 + (hook == "on_train_batch_end"))
    assert straight.steps[:5] + resumed.steps == straight.steps


# Chunks of one length, which need no reload; and with a limit on their batches.
@pytest.mark.parametrize(("chunk", "limit", "hook", "steps"), [
    (5, None, "on_train_batch_end", 15), (None, None, "on_train_batch_end", 25), (5, 2, "on_train_epoch_end", 10),
])  # fmt: skip
def test_a_resume_between_equal_chunks(folder, tmp_path, chunk, limit, hook, steps):
    path = tmp_path / "saved.ckpt"
    options = {"options": {"train_chunk_size": chunk}} | ({} if limit is None else {"limit_train_batches": limit})
    straight = fit(folder, callbacks=[Save(path, hook, 4)], **options)
    assert len(straight.steps) == steps
    assert straight.steps[:4] + fit(folder, ckpt=path, **options).steps == straight.steps


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"num_workers": 2}, {"num_workers": 2, "persistent_workers": True}])
def test_workers_that_fetch_ahead_lose_nothing(folder, tmp_path, options):
    path = tmp_path / "saved.ckpt"
    plain = fit(folder)
    straight = fit(folder, callbacks=[Save(path, "on_train_batch_end", 3)], options=options, num_sanity_val_steps=0)
    assert straight.steps == plain.steps
    assert plain.steps[:3] + fit(folder, ckpt=path, options=options).steps == plain.steps


@pytest.mark.parametrize("stop", [1, 3, 4])
def test_a_run_that_stopped_at_max_steps_goes_on_where_it_was(folder, tmp_path, stop):
    path = tmp_path / "saved.ckpt"
    straight = fit(folder)
    first = fit(folder, max_steps=stop, callbacks=[Save(path, "on_train_end", stop)])
    # Lightning counts the epoch that was cut short, or an empty one after a run that was not: one epoch more.
    resumed = fit(folder, ckpt=path, max_epochs=6, max_steps=9)
    assert first.steps + resumed.steps == straight.steps


@pytest.mark.parametrize("validation", [{}, {"limit_val_batches": 0}])
@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_a_run_that_ended_can_be_made_longer(folder, tmp_path, epochs, validation):
    path = tmp_path / "saved.ckpt"
    straight = fit(folder)
    steps = [0, 2, 4, 5][epochs]
    first = fit(folder, max_epochs=epochs, callbacks=[Save(path, "on_train_end", steps)], **validation)
    resumed = fit(folder, ckpt=path, max_epochs=6, **validation)
    assert first.steps + resumed.steps == straight.steps


def test_a_crash_is_resumed(folder, tmp_path):
    path = tmp_path / "saved.ckpt"
    straight = fit(folder)
    crashed = Recorder(fail_at=3)
    with pytest.raises(InterruptedError):
        fit(folder, crashed, callbacks=[Save(path, "on_exception", 3)])
    assert crashed.steps + fit(folder, ckpt=path).steps == straight.steps


def test_a_run_can_be_resumed_twice(folder, tmp_path):
    paths = [tmp_path / "first.ckpt", tmp_path / "second.ckpt"]
    straight = fit(folder)
    fit(folder, max_steps=1, callbacks=[Save(paths[0], "on_train_end", 1)])
    middle = fit(folder, ckpt=paths[0], max_epochs=6, callbacks=[Save(paths[1], "on_train_batch_end", 3)])
    assert straight.steps[1:] == middle.steps[: len(straight.steps) - 1]
    last = fit(folder, ckpt=paths[1], max_epochs=6)
    assert straight.steps[3:] == last.steps[: len(straight.steps) - 3]


@pytest.mark.filterwarnings("ignore:You requested to overfit")
def test_overfitting_one_batch_repeats_it(folder):
    recorder = fit(folder, overfit_batches=1, max_epochs=3)
    assert recorder.steps == [recorder.steps[0]] * 3


def test_a_second_trainer_begins_at_the_beginning(folder):
    data = module(folder, train_chunk_size=4)
    recorders = []
    for _ in range(2):
        recorders.append(Recorder())
        trainer = pl.Trainer(
            accelerator="cpu", max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(recorders[-1], data)
    assert recorders[0].steps == recorders[1].steps


def test_val_check_interval_longer_than_the_last_chunk_is_refused_at_the_start(folder):
    with pytest.raises(DataError, match=r"last chunk .* has 1 batches, fewer than trainer\.val_check_interval=2"):
        fit(folder, val_check_interval=2)


def test_no_warning_is_hidden_by_the_filters(folder, tmp_path):
    path = tmp_path / "saved.ckpt"
    fit(folder, callbacks=[Save(path, "on_train_batch_end", 3)])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(folder, ckpt=path)
    assert not [str(w.message) for w in caught if "not resumable" in str(w.message)]
