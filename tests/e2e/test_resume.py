"""Checkpoints: a run cut in two is the run in one piece, what does not fit is refused, what is kept is plain."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from pytorch_lightning.callbacks import Callback

import stereo_sashimi
from stereo_sashimi.commands.train import build
from stereo_sashimi.models.checkpoint import CheckpointError, load
from stereo_sashimi.tasks import AutoregressiveTask
from stereo_sashimi.tasks.checkpoints import AtomicCheckpointIO

ROOT = Path(__file__).resolve().parents[2]
CATEGORICAL = ("dataset.bits=8", "decoder=categorical", "encoder.init=normal", "logger=none")
# 11 clips in batches of 2: six steps an epoch, so two and four are inside it.
OPTIONS = (
    *CATEGORICAL,
    *("loader.batch_size=2", "scheduler.total_steps=20", "train.validate_before=false"),
)


def content(run: Path) -> dict:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


def assert_same(a: object, b: object, where: str = "checkpoint") -> None:
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}[{i}]")
    else:
        assert a == b, where


class Clips(Callback):
    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen.append((trainer.global_step, batch.clips.tolist()))


@pytest.mark.parametrize(
    ("cut", "end"),
    [
        pytest.param(2, 4, id="inside", marks=pytest.mark.slow),
        pytest.param(4, 8, id="across"),
        pytest.param(6, 8, id="at an epoch's end", marks=pytest.mark.slow),
    ],
)
def test_two_halves_are_the_whole(train, tmp_path, cut, end):
    straight, resumed = Clips(), Clips()
    train(*OPTIONS, f"trainer.max_steps={end}", run=tmp_path / "a", watchers=[straight])
    train(*OPTIONS, f"trainer.max_steps={cut}", run=tmp_path / "b", watchers=[resumed])
    last = tmp_path / "b" / "checkpoints" / "last.ckpt"
    train(*OPTIONS, f"trainer.max_steps={end}", f"checkpoint={last}", run=tmp_path / "c",
          watchers=[resumed])  # fmt: skip
    assert resumed.seen == straight.seen
    a, c = content(tmp_path / "a"), content(tmp_path / "c")
    assert a["global_step"] == c["global_step"] == end
    for part in ("state_dict", "optimizer_states", "lr_schedulers"):
        assert_same(a[part], c[part], part)


PLATEAU = (
    "dataset=sample",
    *CATEGORICAL,
    *("loader.batch_size=2", "train.validate_before=false", "scheduler=plateau", "scheduler.patience=0"),
    *("train.mode=max", "task.metrics=[bpb]"),
)


@pytest.fixture
def plateau(train, small):
    """As `train`, with the plateau scheduler and six steps an epoch; every validation after the first is worse."""
    return partial(train, *PLATEAU, base=small)


@pytest.mark.slow
@pytest.mark.parametrize("cut", [8, 12], ids=["inside", "at an epoch's end"])
def test_plateau_counts_every_validation_once(plateau, tmp_path, cut):
    plateau("trainer.max_steps=24", run=tmp_path / "a")
    plateau(f"trainer.max_steps={cut}", run=tmp_path / "b")
    last = tmp_path / "b" / "checkpoints" / "last.ckpt"
    plateau("trainer.max_steps=24", f"checkpoint={last}", run=tmp_path / "c")
    a, c = content(tmp_path / "a"), content(tmp_path / "c")
    # Four validations of a loss that falls while mode=max: the rate was lowered at each but the first.
    assert a["lr_schedulers"][0]["last_epoch"] == 4
    for part in ("state_dict", "optimizer_states", "lr_schedulers"):
        assert_same(a[part], c[part], part)


@pytest.mark.slow
def test_plateau_counts_validations_and_not_epochs(plateau, tmp_path):
    plateau("trainer.max_steps=24", "trainer.check_val_every_n_epoch=2", run=tmp_path / "a")
    assert content(tmp_path / "a")["lr_schedulers"][0]["last_epoch"] == 2


@pytest.mark.slow
def test_a_resumed_run_has_to_beat_the_best_before_it(plateau, tmp_path):
    # mode=max of a falling loss: the first validation stays the best.
    plateau("trainer.max_steps=12", run=tmp_path / "a")
    first = tmp_path / "a" / "checkpoints"
    result = plateau("trainer.max_steps=18", f"checkpoint={first / 'last.ckpt'}", run=tmp_path / "b")
    best = tmp_path / "b" / "checkpoints" / "best.ckpt"
    assert best.read_bytes() == (first / "best.ckpt").read_bytes()
    assert Path(result["best"]).resolve() == best.resolve()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("optimizer.lr=0.1",), r"optimizer\.lr=0\.004; this run has 0\.1\. Match `optimizer`"),
        (("scheduler=none",), r"scheduler.*Match `scheduler`"),
        (("dataset.context_len=3",), r"context_len=None; this run has 3\. Match `dataset`"),
        (("dataset.pad_len=3",), r"pad_len=0; this run has 3\. Match `dataset`"),
    ],
    ids=["lr", "scheduler", "context", "pad"],
)
def test_what_shapes_training_must_be_as_it_was(train, trained, options, message):
    with pytest.raises(ValueError, match=message):
        train(*OPTIONS, f"checkpoint={trained}", *options)


def test_a_failed_save_leaves_the_checkpoint_before_it(tmp_path, monkeypatch):
    path, writer = tmp_path / "last.ckpt", AtomicCheckpointIO()
    writer.save_checkpoint({"step": 1}, path)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        writer.save_checkpoint({"step": 2}, path)
    assert torch.load(path, weights_only=True) == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_the_optimizer_is_part_of_it(train, tmp_path):
    # The check above can fail: weights alone do not continue a run.
    train(*OPTIONS, "trainer.max_steps=2", run=tmp_path / "a")
    saved = content(tmp_path / "a")
    moments = saved["optimizer_states"][0]["state"]
    assert moments
    assert all(float(state["step"]) == 2 for state in moments.values())
    assert any(bool(state["exp_avg"].any()) for state in moments.values())


@pytest.fixture(scope="module")
def trained(launch, stereo_folder, tmp_path_factory) -> Path:
    """last.ckpt of a stereo run with an 8-bit categorical head, in mid-epoch."""
    run = tmp_path_factory.mktemp("trained")
    launch(run, stereo_folder, *OPTIONS, "trainer.max_steps=1")
    return run / "checkpoints" / "last.ckpt"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("dataset.is_stereo=false",), r"spec\.n_channels=2; this run has 1.*Match `dataset`"),
        (("dataset.bits=16",), r"spec\.bits=8; this run has 16.*Match `dataset`"),
        (("model.d_model=8",), r"encoder\.d_model=4; this run has 8"),
        (("model.n_layers=2",), r"model\.n_layers=1; this run has 2.*Match `model`"),
        (("decoder=dml",), r"decoder\.kind='categorical'; this run has 'dml'.*Match `decoder`"),
    ],
    ids=["channels", "bits", "width", "layers", "decoder"],
)
def test_a_checkpoint_of_another_model_is_refused(train, tmp_path, trained, options, message):
    with pytest.raises(ValueError, match=message):
        train(*OPTIONS, f"checkpoint={trained}", *options)
    assert not (tmp_path / "run").exists()


def test_a_truncated_checkpoint_is_named(train, tmp_path, trained):
    cut = tmp_path / "cut.ckpt"
    cut.write_bytes(trained.read_bytes()[:-2000])
    with pytest.raises(CheckpointError, match=r"cut\.ckpt is truncated or not a checkpoint"):
        train(*OPTIONS, f"checkpoint={cut}")


def test_other_batches_in_mid_epoch_are_refused(train, trained):
    with pytest.raises(ValueError, match=r"batches of 2 clips .*this run has 4.*\n.*loader\.batch_size"):
        train(*OPTIONS, f"checkpoint={trained}", "loader.batch_size=4", "trainer.max_steps=4")


class Interrupt(Callback):
    """Ctrl-C in a hook of the fit at a step."""

    def __init__(self, hook, step):
        def stop(trainer, *_):
            if trainer.global_step == step and not trainer.sanity_checking:
                raise KeyboardInterrupt

        setattr(self, hook, stop)


@pytest.mark.parametrize("hook", ["on_train_batch_start", "on_validation_batch_start"])
def test_ctrl_c_saves_where_it_was(train, tmp_path, hook):
    handler = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(SystemExit) as stopped:
            # In mid-epoch, or in the validation at the end of the first.
            train(*OPTIONS, "trainer.max_steps=9", watchers=[Interrupt(hook, 6 if "validation" in hook else 3)])
    finally:
        signal.signal(signal.SIGINT, handler)
    assert stopped.value.code == 130
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "interrupted"
    assert content(tmp_path / "run")["global_step"] == (6 if "validation" in hook else 3)
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    whole, rest = Clips(), Clips()
    train(*OPTIONS, "trainer.max_steps=8", f"checkpoint={last}", run=tmp_path / "rest", watchers=[rest])
    train(*OPTIONS, "trainer.max_steps=8", run=tmp_path / "whole", watchers=[whole])
    assert rest.seen == whole.seen[-len(rest.seen) :]
    assert rest.seen[0][0] == (7 if "validation" in hook else 4)


@pytest.mark.slow
def test_ctrl_c_on_the_command_line(tmp_path, small, stereo_folder):
    process = subprocess.Popen(
        [
            sys.executable, str(ROOT / "train.py"), "experiment=audio/sashimi-sample", *small, *OPTIONS,
            f"dataset.path={stereo_folder}", "scheduler.total_steps=100000",
        ],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("step "):
                break
        else:
            pytest.fail(f"no step was printed: {process.communicate()}")
        process.send_signal(signal.SIGINT)
        started = time.monotonic()
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert time.monotonic() - started < 30
    assert process.returncode == 130
    assert "Interrupted after" in err
    assert "Go on with: python train.py" in err
    assert "Traceback" not in err + out
    (last,) = tmp_path.glob("runs/*/checkpoints/last.ckpt")
    assert load(last).spec.n_channels == 2


def strings_of(value: object) -> list[str]:
    if isinstance(value, dict):
        return [s for pair in value.items() for item in pair for s in strings_of(item)]
    if isinstance(value, (list, tuple)):
        return [s for item in value for s in strings_of(item)]
    return [value] if isinstance(value, str) else []


@pytest.mark.parametrize("name", ["best.ckpt", "last.ckpt"])
def test_a_checkpoint_holds_plain_fields_and_no_code(dml_run, name):
    path = dml_run / "checkpoints" / name
    content = torch.load(path, weights_only=True)
    strings = strings_of(content)
    assert "autoregressive" in strings
    assert not [s for s in strings if "_target_" in s or "stereo_sashimi" in s]
    # Hydra's targets of the model are import paths; none may survive anywhere in the file's bytes.
    assert b"_target_" not in path.read_bytes()


def test_what_was_trained_is_what_is_loaded(dml_run, composed, stereo_folder):
    path = dml_run / "checkpoints" / "best.ckpt"
    model = stereo_sashimi.load(path)
    task = AutoregressiveTask.load_from_checkpoint(path, map_location="cpu", weights_only=True).eval()
    codes = torch.randint(model.spec.n_levels, (2, 50, 2), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(model.log_prob(codes), task(codes))
    # The validation that chose this checkpoint, recomputed clip by clip.
    result = json.loads((dml_run / "run.json").read_text())
    cfg = composed("train", "dataset=sample", f"dataset.path={stereo_folder}", "dataset.sample_len=64",
                   "loader.batch_size=3", "train.val_chunk_size=4")  # fmt: skip
    data = build.build_datamodule(cfg)
    data.setup("validate")
    with torch.no_grad():
        nats = torch.cat([-model.log_prob(batch.codes) for batch in data.val_dataloader()])
    assert len(nats) == 4
    assert result["validation_after"]["val/loss"] == pytest.approx(float(nats.double().mean()), rel=1e-5)
    assert result["validation_after"]["val/loss/right"] == pytest.approx(float(nats[..., 1].double().mean()), rel=1e-5)
