"""SIGTERM (from SLURM or a container) and Ctrl-C: the run saves what it reached, says how to go on, and leaves."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from running import (
    DROPOUT,
    SIX_STEPS,
    TINY,
    TWO,
    Clips,
    Terminate,
    assert_same,
    ended,
    last_of,
    saved,
    start,
    wait_for_step,
)

from stereo_sashimi.commands.train import stopping
from stereo_sashimi.models.checkpoint import load
from stereo_sashimi.tasks import checkpoints

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ctrl_c_stays")]

OPTIONS = (*SIX_STEPS, DROPOUT)


def status(run: Path) -> dict:
    return json.loads((run / "run.json").read_text())


def stopped(train, *options, code=128 + signal.SIGTERM, **keys) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as caught:
        train(*OPTIONS, *options, **keys)
    assert caught.value.code == code
    assert signal.getsignal(signal.SIGTERM) is handler


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
@pytest.mark.parametrize(
    ("hook", "step"), [("on_train_batch_start", 3), ("on_validation_batch_end", 6)], ids=["training", "validation"]
)
def test_it_saves_and_goes_on_exactly(train, tmp_path, capsys, hook, step, number):
    stopped(train, "trainer.max_steps=9", code=128 + number, watchers=[Terminate(hook, step, number=number)])
    err = capsys.readouterr().err
    # At SIGTERM the batch that had begun is finished first.
    step += hook == "on_train_batch_start" and number == signal.SIGTERM
    last = last_of(tmp_path / "run")
    assert f"Interrupted after {step} steps. Go on with: python train.py checkpoint={last}" in err
    found = status(tmp_path / "run")
    assert (found["status"], found["steps"], Path(found["last"])) == ("interrupted", step, last)
    assert saved(tmp_path / "run")["global_step"] == step
    whole, rest = Clips(), Clips()
    train(*OPTIONS, "trainer.max_steps=9", run=tmp_path / "whole", watchers=[whole])
    train(*OPTIONS, "trainer.max_steps=9", f"checkpoint={last}", run=tmp_path / "rest", watchers=[rest])
    assert rest.seen == whole.seen[step:]
    # The validation that was broken off runs again from its start.
    assert rest.validations == whole.validations
    assert_same(tmp_path / "whole", tmp_path / "rest", "state_dict")


def test_between_accumulated_batches_the_step_before_counts(train, tmp_path):
    watch = Clips()
    stopped(train, "trainer.accumulate_grad_batches=3", "trainer.max_steps=9",
            watchers=[watch, Terminate("on_train_batch_start", 1)])  # fmt: skip
    assert len(watch.seen) == 4
    last, whole, rest = last_of(tmp_path / "run"), Clips(), Clips()
    assert saved(tmp_path / "run")["global_step"] == 1
    options = (*OPTIONS, "trainer.accumulate_grad_batches=3", "trainer.max_steps=3")
    train(*options, run=tmp_path / "whole", watchers=[whole])
    train(*options, f"checkpoint={last}", run=tmp_path / "rest", watchers=[rest])
    # The batch whose gradients were lost comes again.
    assert rest.seen == whole.seen[3:]
    assert_same(tmp_path / "whole", tmp_path / "rest", "state_dict")


def test_more_signals_disturb_nothing(train, tmp_path, monkeypatch):
    save = torch.save

    def slow_save(content, file):
        os.kill(os.getpid(), signal.SIGTERM)
        save(content, file)
        os.kill(os.getpid(), signal.SIGTERM)

    write = stopping.write_whole

    def slow_write(path, content):
        os.kill(os.getpid(), signal.SIGTERM)
        write(path, content)

    class Later(Terminate):
        def on_exception(self, trainer, pl_module, exception):
            monkeypatch.setattr(checkpoints.torch, "save", slow_save)
            monkeypatch.setattr(stopping, "write_whole", slow_write)

    stopped(train, "trainer.max_steps=9", watchers=[Later("on_train_batch_start", 3, times=2)])
    assert saved(tmp_path / "run")["global_step"] == 4
    assert status(tmp_path / "run")["status"] == "interrupted"
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize(
    ("option", "hook", "steps", "message"),
    [
        # In the validation before training nothing is trained and nothing saved.
        ("train.validate_before=true", "on_validation_epoch_start", 0, "0 steps. Nothing was saved yet."),
        ("train.test=true", "on_test_batch_end", 2, "2 steps. Go on with:"),
    ],
    ids=["before", "behind"],
)
def test_outside_of_training_it_stops_at_once(train, tmp_path, capsys, option, hook, steps, message):
    stopped(train, option, "trainer.max_steps=2", watchers=[Terminate(hook, steps)])
    assert status(tmp_path / "run")["status"] == "interrupted"
    assert f"Interrupted after {message}" in capsys.readouterr().err
    assert (tmp_path / "run" / "checkpoints").exists() == (steps > 0)


def test_a_resumed_run_that_added_nothing_names_where_it_came_from(train, tmp_path, capsys):
    train(*OPTIONS, "trainer.max_steps=2", run=tmp_path / "a")
    last = last_of(tmp_path / "a")
    stopped(train, f"checkpoint={last}", "trainer.max_steps=9", "train.validate_before=true",
            watchers=[Terminate("on_train_start", 2)])  # fmt: skip
    assert "Go on with: python train.py checkpoint=" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "number", "to_all"),
    [
        ((), signal.SIGINT, False),
        pytest.param((), signal.SIGTERM, False, marks=pytest.mark.long),
        # SLURM sends it to every process of a job, the loader's workers among them; docker to the first.
        (("loader.num_workers=2",), signal.SIGTERM, True),
        # A terminal that closes.
        (("loader.num_workers=2",), signal.SIGHUP, True),
        pytest.param(TWO, signal.SIGTERM, True, marks=pytest.mark.long),
        (TWO, signal.SIGTERM, False),
    ],
    ids=["Ctrl-C", "alone", "with loader workers", "SIGHUP", "two processes", "one of two processes"],
)
def test_on_the_command_line(tmp_path, stereo_folder, options, number, to_all):
    process = start(*TINY, *OPTIONS, f"dataset.path={stereo_folder}", "scheduler.total_steps=100000",
                    "trainer.max_steps=100000", *options, cwd=tmp_path)  # fmt: skip
    wait_for_step(process, 2)
    (os.killpg if to_all else os.kill)(process.pid, number)
    _, err = ended(process)
    assert process.returncode == 128 + (signal.SIGTERM if number == signal.SIGHUP else number), err
    assert err.count("Interrupted after") == 1
    assert "Go on with: python train.py" in err
    (run,) = tmp_path.glob("runs/*")
    assert status(run)["status"] == "interrupted"
    assert saved(run)["global_step"] == status(run)["steps"] >= 2
    assert load(last_of(run)).spec.n_channels == 2
