"""Callbacks of a run: when the last checkpoint is written, what a step line says, when samples are drawn."""

import io
import math
import sys
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import pytorch_lightning as pl
import soundfile
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities.exceptions import SIGTERMException
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from stereo_sashimi.commands.memory import process_bytes
from stereo_sashimi.data.dataset import Batch
from stereo_sashimi.generation.stream import Stream
from stereo_sashimi.schema import to_plain
from stereo_sashimi.tasks import AutoregressiveTask
from stereo_sashimi.tasks.checkpoints import LastCheckpoint
from stereo_sashimi.tasks.ema import EMA
from stereo_sashimi.tasks.optim import AdamWConfig
from stereo_sashimi.tasks.samples import SampleLogger
from stereo_sashimi.tasks.step_lines import StepLines, peak_gib, step_line
from tiny_config import tiny_config


class Trainer(pl.Trainer):
    """What callbacks read of a trainer, settable, and a record of what they save."""

    global_step, world_size, max_steps, sanity_checking, is_global_zero = 0, 1, -1, False, True
    callback_metrics: ClassVar[dict] = {}
    loggers: ClassVar[list] = []
    callbacks: ClassVar[list] = []
    checkpoint_callbacks: ClassVar[list] = []
    received_sigterm = False
    estimated_stepping_batches = float("inf")
    ckpt_path = None
    default_root_dir = "."

    def __init__(self, fn=TrainerFn.FITTING, **values):
        self.state, self.saved, self.accumulating = SimpleNamespace(fn=fn), [], False
        self.fit_loop = SimpleNamespace(_should_accumulate=lambda: self.accumulating)
        for name, value in values.items():
            setattr(self, name, value)

    def save_checkpoint(self, path):
        self.saved.append((path.name, self.global_step))


class Module(pl.LightningModule):
    """Keeps what is logged."""

    def __init__(self):
        super().__init__()
        self.logged = []

    def log_dict(self, numbers, **options):
        self.logged.append(numbers)


MODULE = Module()


def steps(callback: LastCheckpoint, trainer: Trainer, upto: int) -> None:
    while trainer.global_step < upto:
        trainer.global_step += 1
        # Two batches a step, as with accumulated gradients.
        for batch in range(2):
            callback.on_train_batch_end(trainer, MODULE, None, None, batch)


def test_every_nth_step_the_end_and_what_validation_changed(tmp_path):
    callback, trainer = LastCheckpoint(str(tmp_path), every_n_train_steps=3), Trainer()
    callback.on_train_start(trainer, MODULE)
    for upto in (3, 7):
        steps(callback, trainer, upto)
        callback.on_validation_epoch_end(trainer, MODULE)
        callback.on_validation_end(trainer, MODULE)
    # The end adds nothing to a step that is saved, and the last one if it is not.
    callback.on_train_end(trainer, MODULE)
    assert [step for _, step in trainer.saved] == [3, 3, 6, 7]
    steps(callback, trainer, 8)
    callback.on_train_end(trainer, MODULE)
    assert [step for _, step in trainer.saved] == [3, 3, 6, 7, 8]


def test_a_validation_between_two_steps_is_saved_with_the_next(tmp_path):
    callback, trainer = LastCheckpoint(str(tmp_path), every_n_train_steps=100), Trainer()
    callback.on_train_start(trainer, MODULE)
    steps(callback, trainer, 2)
    trainer.accumulating = True
    callback.on_train_batch_end(trainer, MODULE, None, None, 0)
    callback.on_validation_epoch_end(trainer, MODULE)
    callback.on_validation_end(trainer, MODULE)
    assert trainer.saved == []
    trainer.accumulating = False
    steps(callback, trainer, 3)
    assert [step for _, step in trainer.saved] == [3]
    callback.on_train_end(trainer, MODULE)
    assert len(trainer.saved) == 1


def test_leftovers_of_a_killed_run_are_removed(tmp_path):
    for name in (".last.ckpt.0a1b2c3d.part", ".best.ckpt.0a1b2c3d.part", ".previous.ckpt.0a1b2c3d.part"):
        (tmp_path / name).write_bytes(b"half")
    kept = [tmp_path / "last.ckpt", tmp_path / ".mine.part"]
    for path in kept:
        path.write_bytes(b"whole")
    LastCheckpoint(str(tmp_path)).setup(Trainer(), MODULE, "fit")
    assert sorted(tmp_path.iterdir()) == sorted(kept)


def test_a_run_that_trains_nothing_saves_nothing(tmp_path):
    callback, trainer = LastCheckpoint(str(tmp_path), every_n_train_steps=3), Trainer(global_step=6)
    callback.on_train_start(trainer, MODULE)
    callback.on_train_end(trainer, MODULE)
    assert trainer.saved == []
    steps(callback, trainer, 9)
    assert trainer.saved == [("last.ckpt", 9)]


@pytest.mark.parametrize(
    ("error", "values", "saved"),
    [
        (KeyboardInterrupt(), {}, True),
        (SIGTERMException(), {}, True),
        (RuntimeError("a worker was killed"), {"received_sigterm": True}, True),
        (RuntimeError("out of memory"), {}, False),
        (KeyboardInterrupt(), {"sanity_checking": True}, False),
        (KeyboardInterrupt(), {"fn": TrainerFn.VALIDATING}, False),
    ],
)
def test_ctrl_c_saves_a_fit(tmp_path, error, values, saved):
    callback, trainer = LastCheckpoint(str(tmp_path)), Trainer(global_step=4, **values)
    callback.on_exception(trainer, MODULE, error)
    assert trainer.saved == ([("last.ckpt", 4)] if saved else [])


@pytest.mark.parametrize(
    ("callback", "fields", "message"),
    [
        (LastCheckpoint, {"dirpath": "x", "every_n_train_steps": 0},
         r"callbacks\.last\.every_n_train_steps must be at least 1; got 0"),
        (SampleLogger, {"seconds": 0.0}, r"callbacks\.samples needs seconds > 0"),
        (SampleLogger, {"every_n_validations": 0}, r"every_n_validations >= 1"),
        (EMA, {"decay": 1.0}, r"callbacks\.ema\.decay must be at least 0 and below 1; got 1"),
        (EMA, {"update_every_n_steps": 0}, r"callbacks\.ema needs update_every_n_steps >= 1"),
    ],
)  # fmt: skip
def test_bad_options(callback, fields, message):
    with pytest.raises(ValueError, match=message):
        callback(**fields)


METRICS = {
    "train/loss": torch.tensor(3.4), "train/bits_per_sample": torch.tensor(4.905),
    "train/bits_per_sample/left": torch.tensor(4.8), "train/bits_per_sample/right": torch.tensor(5.01),
}  # fmt: skip


def test_a_step_line():
    line = step_line(20, METRICS, 35210.0, 1.234, lr=0.004, total=300, seconds_left=75.4)
    assert line == (
        "step 20 of 300  loss 3.4000 nats  4.905 bits/sample (left 4.800 right 5.010)  lr 0.004  35.2 k samples/s  "
        "1.23 GiB  0:01:15 left"
    )
    mono = {name: value for name, value in METRICS.items() if not name.endswith(("left", "right"))}
    line = step_line(20, mono, 35210.0, 1.0, lr=1 / 3)
    assert line == "step 20  loss 3.4000 nats  4.905 bits/sample  lr 0.333  35.2 k samples/s  1.00 GiB"


def test_step_lines_tell_the_first_step_at_once_and_count_samples_of_every_process(capsys, monkeypatch):
    clock = iter([10.0, 10.5, 11.0, 13.0, 15.0])
    monkeypatch.setattr("stereo_sashimi.tasks.step_lines.time", SimpleNamespace(perf_counter=lambda: next(clock)))
    callback, trainer, module = StepLines(every_n_steps=2), Trainer(callback_metrics=METRICS, world_size=3), Module()
    trainer.estimated_stepping_batches = 20
    optimizer = SimpleNamespace(param_groups=[{"lr": 1.0}, {"lr": 0.5}])
    # Resumed behind step 6.
    trainer.global_step = 6
    callback.on_train_start(trainer, module)
    batch = Batch(torch.zeros(2, 50, 2, dtype=torch.int64), torch.tensor([50, 30]), torch.arange(2))
    for trainer.global_step in (7, 8, 8, 9):
        callback.on_before_optimizer_step(trainer, module, optimizer)
        callback.on_train_batch_end(trainer, module, None, batch, 0)
    # Batches of 80 valid frames, two channels, three processes: one in half a second, one in two seconds.
    assert [numbers.get("train/samples_per_s") for numbers in module.logged] == [960.0, None, 240.0, None]
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("step 7 of 20  ")
    assert "left" not in first.split("  ")[-1]
    assert "  lr 0.5  " in first
    # Two steps took five seconds; twelve are left.
    assert second.startswith("step 8 of 20  ")
    assert second.endswith("  0:00:30 left")


def test_the_validation_line(capsys):
    metrics = {name.replace("train", "val"): value for name, value in METRICS.items()}
    StepLines().on_validation_end(Trainer(global_step=5, callback_metrics=metrics), Module())
    StepLines().on_validation_end(Trainer(sanity_checking=True, callback_metrics=metrics), Module())
    behind = Trainer(fn=TrainerFn.VALIDATING, global_step=7, callback_metrics=metrics, ckpt_path="run/best.ckpt")
    StepLines().on_validation_end(behind, Module())
    expected = "val  step 5  loss 3.4000 nats  4.905 bits/sample (left 4.800 right 5.010)\n"
    assert capsys.readouterr().out == expected + expected.replace("step 5", "best.ckpt")


def test_memory_is_positive_and_less_than_a_terabyte():
    assert 0.01 < peak_gib(torch.device("cpu")) < 1000


def test_a_system_that_does_not_tell_memory(monkeypatch):
    # Windows.
    monkeypatch.setitem(sys.modules, "resource", None)
    assert math.isnan(peak_gib(torch.device("cpu")))
    with pytest.raises(ValueError, match="does not tell the memory of a process"):
        process_bytes()


@pytest.fixture(scope="module")
def task() -> AutoregressiveTask:
    return AutoregressiveTask(tiny_config(pool_weight_norm=True).to_plain(), to_plain(AdamWConfig()))


def test_samples_every_nth_validation_of_a_fit(task, tmp_path):
    callback = SampleLogger(seconds=0.0005, every_n_validations=2)
    trainer = Trainer(default_root_dir=str(tmp_path))
    callback.on_validation_end(Trainer(sanity_checking=True), task)
    callback.on_validation_end(Trainer(fn=TrainerFn.VALIDATING), task)
    for trainer.global_step in (10, 20, 30):
        callback.on_validation_end(trainer, task)
    assert {path.name for path in (tmp_path / "samples").iterdir()} == {"step-20.wav", "step-20.png"}


def test_tensorboard_gets_both_channels_in_one_clip(task, tmp_path):
    board = TensorBoardLogger(tmp_path / "board", name="", version="")
    trainer = Trainer(default_root_dir=str(tmp_path), loggers=[board], global_step=5)
    SampleLogger(seconds=0.0005, every_n_validations=1).on_validation_end(trainer, task)
    board.experiment.flush()
    events = EventAccumulator(str(tmp_path / "board")).Reload()
    assert events.Tags()["audio"] == ["sample/audio"]
    (clip,) = events.Audio("sample/audio")
    pcm, rate = soundfile.read(io.BytesIO(clip.encoded_audio_string), dtype="int16")
    assert (clip.step, rate, pcm.shape) == (5, 44100, (22, 2))


def test_drawing_leaves_the_model_as_it_is(task, tmp_path):
    task.train()
    codes = torch.randint(256, (1, 8, 2))
    before, generator = task.model.log_prob(codes), torch.get_rng_state()
    SampleLogger(seconds=0.0002, every_n_validations=1).on_validation_end(Trainer(default_root_dir=str(tmp_path)), task)
    assert torch.equal(torch.get_rng_state(), generator)
    assert task.training
    assert torch.equal(task.model.log_prob(codes), before)
    task.model.log_prob(codes).mean().backward()
    assert np.isfinite([float(p.grad.norm()) for p in task.parameters()]).all()


def test_drawing_lifts_determinism_for_a_moment(task, tmp_path, monkeypatch):
    modes = []
    draw = Stream.draw

    def watched(self, *args):
        modes.append(torch.are_deterministic_algorithms_enabled())
        return draw(self, *args)

    monkeypatch.setattr(Stream, "draw", watched)
    torch.use_deterministic_algorithms(True)
    try:
        callback = SampleLogger(seconds=0.0002, every_n_validations=1)
        callback.on_validation_end(Trainer(default_root_dir=str(tmp_path)), task)
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    assert set(modes) == {False}


def test_nothing_is_drawn_from_a_model_that_is_nan(task, tmp_path, caplog):
    with torch.no_grad():
        next(task.model.head.parameters()).fill_(float("nan"))
    SampleLogger(seconds=0.0002, every_n_validations=1).on_validation_end(Trainer(default_root_dir=str(tmp_path)), task)
    assert list(tmp_path.iterdir()) == []
    assert "No sample is drawn at step" in caplog.text
    assert "NaN or infinity" in caplog.text


def test_drawing_ends_when_the_run_has_to(task, tmp_path):
    trainer = Trainer(default_root_dir=str(tmp_path), received_sigterm=True)
    SampleLogger(seconds=10.0, every_n_validations=1).on_validation_end(trainer, task)
    assert list(tmp_path.iterdir()) == []
