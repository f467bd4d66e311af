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


@pytest.fixture(scope="module")
def straight(folder) -> Recorder:
    return fit(folder)


def test_epochs_walk_the_chunks_in_turn(straight):
    steps = straight.steps
    per_epoch = [steps[0:2], steps[2:4], steps[4:5], steps[5:7], steps[7:]]
    expected = [range(0, 4), range(4, 8), range(8, 10), range(0, 4), range(4, 8)]
    assert [sorted(chain.from_iterable(steps)) for steps in per_epoch] == [list(chunk) for chunk in expected]
    # Validation follows every epoch, also the shorter one, always with the same clips.
    assert len(straight.validated) == 1 + 5
    assert straight.validated[1:] == [straight.validated[1]] * 5


BATCH, VALIDATION, EPOCH = "on_train_batch_end", "on_validation_end", "on_train_epoch_end"
NO_VALIDATION, SELDOM = {"limit_val_batches": 0}, {"check_val_every_n_epoch": 2}


# Steps of an epoch: 2, 2, 1, 2, 2. So 3 is inside epoch 1; 2, 4 and 5 are ends of epochs.
@pytest.mark.parametrize(
    ("hook", "step", "options", "steps"),
    [
        *((BATCH, step, {}, 9) for step in (1, 2, 3, 4, 5)),
        *((hook, step, {}, 9) for hook in (VALIDATION, EPOCH) for step in (2, 4, 5)),
        *((BATCH, step, options, 9) for step in (2, 3) for options in (NO_VALIDATION, SELDOM)),
        *((VALIDATION, 4, SELDOM, 9), (EPOCH, 2, SELDOM, 9), (EPOCH, 4, NO_VALIDATION, 9)),
        # Chunks of one length, which need no reload; and with a limit on their batches.
        (BATCH, 4, {"options": {"train_chunk_size": 5}}, 15),
        (BATCH, 4, {"options": {"train_chunk_size": None}}, 25),
        (EPOCH, 4, {"options": {"train_chunk_size": 5}, "limit_train_batches": 2}, 10),
    ],
)
def test_a_resumed_run_sees_the_same_clips(folder, tmp_path, hook, step, options, steps):
    path = tmp_path / "saved.ckpt"
    straight = fit(folder, callbacks=[Save(path, hook, step)], **options)
    assert len(straight.steps) == steps
    # At the last batch of the short chunk Lightning counts an empty epoch.
    more = {"max_epochs": 6} if (hook, step) == (BATCH, 5) else {}
    assert straight.steps[:step] + fit(folder, ckpt=path, **options | more).steps == straight.steps


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"num_workers": 2}, {"num_workers": 2, "persistent_workers": True}])
def test_workers_that_fetch_ahead_lose_nothing(folder, straight, tmp_path, options):
    path = tmp_path / "saved.ckpt"
    ahead = fit(folder, callbacks=[Save(path, "on_train_batch_end", 3)], options=options, num_sanity_val_steps=0)
    assert ahead.steps == straight.steps
    assert straight.steps[:3] + fit(folder, ckpt=path, options=options).steps == straight.steps


@pytest.mark.parametrize(
    ("limit", "steps", "options"),
    [
        *(({"max_steps": steps}, steps, {"max_steps": 9}) for steps in (1, 3, 4)),
        *(({"max_epochs": epochs}, steps, {}) for epochs, steps in ((1, 2), (2, 4), (3, 5))),
        ({"max_epochs": 2} | NO_VALIDATION, 4, NO_VALIDATION),
    ],
)
def test_a_run_that_came_to_its_limit_goes_on_where_it_was(folder, straight, tmp_path, limit, steps, options):
    path = tmp_path / "saved.ckpt"
    first = fit(folder, callbacks=[Save(path, "on_train_end", steps)], **limit)
    # Lightning counts the epoch that was cut short, or an empty one after a run that was not: one epoch more.
    resumed = fit(folder, ckpt=path, max_epochs=6, **options)
    assert first.steps + resumed.steps == straight.steps


def test_a_crash_is_resumed(folder, straight, tmp_path):
    path = tmp_path / "saved.ckpt"
    crashed = Recorder(fail_at=3)
    with pytest.raises(InterruptedError):
        fit(folder, crashed, callbacks=[Save(path, "on_exception", 3)])
    assert crashed.steps + fit(folder, ckpt=path).steps == straight.steps


def test_a_run_can_be_resumed_twice(folder, straight, tmp_path):
    paths = [tmp_path / "first.ckpt", tmp_path / "second.ckpt"]
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
