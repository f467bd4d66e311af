"""`train.carry_state=true`: runs over whole tracks, cut in two, killed, in two processes, and what is refused."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_lightning.callbacks import Callback

import stereo_sashimi
from stereo_sashimi.audio.io import write_pcm

ROOT = Path(__file__).resolve().parents[2]
# Frames of the training tracks: 5, 2, 8, 3 and 1 clips of 64, the last ones of three tracks short.
FRAMES = (320, 100, 512, 170, 40)
OPTIONS = (
    *("train.carry_state=true", "dataset.drop_last=false", "dataset.bits=8", "decoder=categorical"),
    *("encoder.init=normal", "logger=none", "loader.batch_size=2", "scheduler.total_steps=40"),
    *("train.validate_before=false", "train.train_chunk_size=12", "model.dropout=0.2", "dataset.context_len=10"),
)
PARTS = ("state_dict", "optimizer_states", "lr_schedulers", "AudioDataModule", "resume", "loops")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five training tracks of different lengths."""
    root = tmp_path_factory.mktemp("tracks")
    for split, frames in (("train", FRAMES), ("valid", (200, 90)), ("test", (128,))):
        (root / split).mkdir()
        for number, n in enumerate(frames):
            noise = np.random.default_rng([n, number]).integers(-3000, 3000, (n, 2)).astype(np.int16)
            write_pcm(root / split / f"{number}.wav", noise, 44100)
    return root


class Rows(Callback):
    """What each batch had, and what was carried to the next."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen.append((batch.clips.tolist(), batch.first.tolist(), pl_module.carry.value.clips.tolist()))


def content(run: Path) -> dict:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


def differences(a: object, b: object, where: str = "") -> list[str]:
    """Where two checkpoints differ, to the bit."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return [] if torch.equal(a, b) else [where]
    if isinstance(a, dict) and isinstance(b, dict):
        found = [] if a.keys() == b.keys() else [f"{where}: keys {a.keys() ^ b.keys()}"]
        return found + [d for key in a.keys() & b.keys() for d in differences(a[key], b[key], f"{where}.{key}")]
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        found = [] if len(a) == len(b) else [f"{where}: {len(a)} and {len(b)} entries"]
        pairs = enumerate(zip(a, b, strict=False))
        return found + [d for i, (x, y) in pairs for d in differences(x, y, f"{where}[{i}]")]
    return [] if a == b else [f"{where}: {a!r} and {b!r}"]


def assert_same(run: Path, other: Path) -> None:
    a, b = content(run), content(other)
    for saved in (a, b):
        for states in saved["resume"]["random_states"]:
            # The type checks of tests draw from it.
            del states["python"]
    assert a["global_step"] == b["global_step"]
    assert differences({part: a[part] for part in PARTS}, {part: b[part] for part in PARTS}) == []


# An epoch is six steps; whole tracks end in any of them.
@pytest.mark.parametrize(
    ("cut", "end", "options"),
    [
        pytest.param(3, 8, (), id="inside"),
        pytest.param(6, 8, (), id="at an epoch's end", marks=pytest.mark.slow),
        pytest.param(8, 13, (), id="in the second epoch", marks=pytest.mark.slow),
        pytest.param(3, 8, ("callbacks=ema", "callbacks.samples=null"), id="averaged weights", marks=pytest.mark.slow),
        pytest.param(2, 6, ("trainer.accumulate_grad_batches=2",), id="accumulated", marks=pytest.mark.slow),
        pytest.param(3, 8, ("loader.num_workers=2",), id="workers", marks=pytest.mark.slow),
        pytest.param(5, 9, ("trainer.limit_train_batches=4",), id="limited", marks=pytest.mark.slow),
        pytest.param(
            3,
            8,
            ("encoder.merge=none", "decoder.coupling=independent", "model.unet=true"),
            id="folded",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_two_halves_are_the_whole(train, folder, tmp_path, cut, end, options):
    straight, resumed = Rows(), Rows()
    options = (*OPTIONS, *options)
    train(*options, f"trainer.max_steps={end}", run=tmp_path / "a", data=folder, watchers=[straight])
    train(*options, f"trainer.max_steps={cut}", run=tmp_path / "b", data=folder, watchers=[resumed])
    last = tmp_path / "b" / "checkpoints" / "last.ckpt"
    train(*options, f"trainer.max_steps={end}", f"checkpoint={last}", run=tmp_path / "c", data=folder,
          watchers=[resumed])  # fmt: skip
    assert resumed.seen == straight.seen
    assert_same(tmp_path / "a", tmp_path / "c")
    carried = content(tmp_path / "c")["resume"]["carried"]
    assert carried[0]["clips"].tolist() == straight.seen[-1][0]
    assert any(bool(layer.any()) for layer in carried[0]["layers"] if layer is not None)
    # What is carried is for training alone: the model is read as ever.
    assert stereo_sashimi.load(tmp_path / "c").spec.n_channels == 2


@pytest.mark.slow
def test_a_run_without_the_carried_state_is_another(train, folder, tmp_path):
    # The comparison above can fail: the same run, resumed with the carried state of a track's start.
    train(*OPTIONS, "trainer.max_steps=3", run=tmp_path / "a", data=folder)
    saved = content(tmp_path / "a")
    for layer in saved["resume"]["carried"][0]["layers"]:
        if layer is not None:
            layer.zero_()
    (tmp_path / "reset").mkdir()
    torch.save(saved, tmp_path / "reset" / "last.ckpt")
    for name, path in (("b", tmp_path / "a" / "checkpoints"), ("c", tmp_path / "reset")):
        train(*OPTIONS, "trainer.max_steps=5", f"checkpoint={path / 'last.ckpt'}", run=tmp_path / name, data=folder)
    b, c = content(tmp_path / "b"), content(tmp_path / "c")
    assert differences(b["AudioDataModule"], c["AudioDataModule"]) == []
    assert differences(b["state_dict"], c["state_dict"])


@pytest.mark.slow
@pytest.mark.parametrize("limit", [(), ("trainer.limit_train_batches=4",), ("trainer.limit_train_batches=0.5",)],
                         ids=["whole", "batches", "share"])  # fmt: skip
def test_epochs_walk_on_through_the_tracks(train, folder, limit):
    rows = Rows()
    train(*OPTIONS, *limit, "trainer.max_steps=20", data=folder, watchers=[rows])
    assert len(rows.seen) == 20
    starts = {0, 5, 7, 15, 18}
    begun = []
    for (clips, first, carried), before in zip(rows.seen, [None, *rows.seen], strict=False):
        assert carried == clips
        assert first == [clip in starts for clip in clips]
        for row, clip in enumerate(clips):
            assert first[row] or clip == before[0][row] + 1
            begun += [clip] if first[row] else []
    assert sorted(begun[:5]) == sorted(starts), "a pass has every track once"


class Spoil(Callback):
    """Leaves a NaN in what the first row carries to the third step."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == 2:
            layers = [x if x is None else x.clone() for x in pl_module.carry.value.state.layers]
            next(x for x in layers if x is not None and x.numel())[0] = torch.nan
            state = pl_module.carry.value.state._replace(layers=tuple(layers))
            pl_module.carry.value = pl_module.carry.value._replace(state=state)


def test_a_skipped_step_does_not_spoil_what_follows(train, folder, tmp_path):
    # With this seed the spoiled row is in the middle of a track.
    options = (*OPTIONS, "train.seed=1", "train.on_nan=skip", "trainer.max_steps=6")
    rows = Rows()
    result = train(*options, data=folder, watchers=[rows, Spoil()])
    assert not rows.seen[2][1][0], "the row goes on with what was spoiled"
    assert (result["steps"], result["skipped_steps"]) == (6, 1)
    saved = content(tmp_path / "run")
    assert saved["resume"]["carried"][0]["intact"].tolist() == [True, True]
    assert all(bool(x.isfinite().all()) for x in saved["state_dict"].values())


@pytest.fixture(scope="module")
def trained(launch, folder, tmp_path_factory) -> Path:
    """last.ckpt of a run that carries its state, in mid-epoch."""
    run = tmp_path_factory.mktemp("trained")
    launch(run, folder, *OPTIONS, "trainer.max_steps=1")
    return run / "checkpoints" / "last.ckpt"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("train.carry_state=false",), r"carry_state=True; this run has False\. Match `train\.carry_state`"),
        (("loader.batch_size=1",), r"n_lanes=2, this data set has 1\.\n.*loader\.batch_size"),
        (("train.train_chunk_size=8",), r"chunk_size=12, this data set has 8\.\n.*train\.train_chunk_size"),
        (("trainer.limit_train_batches=2",), r"n_steps=6, this data set has 2\.\n.*trainer\.limit_train_batches"),
    ],
    ids=["carry", "batch", "chunk", "limit"],
)
def test_what_shapes_the_walk_must_be_as_it_was(train, folder, trained, options, message):
    with pytest.raises(ValueError, match=message):
        train(*OPTIONS, f"checkpoint={trained}", "trainer.max_steps=4", *options, data=folder)


def test_a_checkpoint_that_carries_nothing_is_refused(train, folder, tmp_path):
    train(*OPTIONS, "train.carry_state=false", "trainer.max_steps=1", run=tmp_path / "a", data=folder)
    last = tmp_path / "a" / "checkpoints" / "last.ckpt"
    with pytest.raises(ValueError, match=r"carry_state=False; this run has True\. Match `train\.carry_state`"):
        train(*OPTIONS, f"checkpoint={last}", data=folder)
    # As one that was written before there was such a key, which resumes without it.
    saved = content(tmp_path / "a")
    del saved["hyper_parameters"]["carry_state"]
    torch.save(saved, last)
    with pytest.raises(ValueError, match="carry_state=False; this run has True"):
        train(*OPTIONS, f"checkpoint={last}", data=folder)
    options = (*OPTIONS, "train.carry_state=false", "trainer.max_steps=2")
    assert train(*options, f"checkpoint={last}", data=folder)["steps"] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("train.carry_state=3",), r"train\.carry_state must be true or false; got 3"),
        (("dataset.pad_len=4",), r"dataset\.pad_len=4 .*train\.carry_state=true.*Set dataset\.pad_len=null"),
        (("dataset.sample_len=70",), r"multiple of 16, the product of model\.pool; got 70\. .*sample_len=64 or 80"),
        (("loader.batch_size=6",), r"5 tracks for training and 6 rows .*\n  Set loader\.batch_size=5 or less"),
        (("trainer.overfit_batches=1",), r"trainer\.overfit_batches=1 puts other batches there.*overfit_batches=0"),
        (("trainer.use_distributed_sampler=true",), r"trainer\.use_distributed_sampler=True .*=false"),
    ],
    ids=["type", "pad", "pool", "lanes", "overfit", "sampler"],
)
def test_bad_values(refusal, small, folder, tmp_path, options, message):
    base = ("experiment=audio/sashimi-sample", *small, *OPTIONS, f"paths.run={tmp_path / 'run'}")
    assert re.search(message, refusal("train", *base, f"dataset.path={folder}", *options))


def test_a_misspelt_key(refusal, small, folder, tmp_path):
    base = ("experiment=audio/sashimi-sample", *small, f"paths.run={tmp_path / 'run'}", f"dataset.path={folder}")
    assert "train.carry_sate. Did you mean train.carry_state?" in refusal("train", *base, "+train.carry_sate=true")


def start(run: Path, data: Path, small: tuple[str, ...], *overrides: str) -> subprocess.Popen[str]:
    """`python train.py` into the folder `run`."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), "experiment=audio/sashimi-sample", *small, *OPTIONS,
         f"dataset.path={data}", f"paths.run={run}", f"hydra.run.dir={run}/hydra", *overrides],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )  # fmt: skip


def finish(*arguments) -> None:
    with start(*arguments) as process:
        out, err = process.communicate(timeout=250)
    assert process.returncode == 0, out + err


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("every", "step"), [(3, 8), (1, 7)])
def test_killed_and_resumed_is_left_alone(small, folder, tmp_path, every, step):
    with start(
        tmp_path / "killed", folder, small, "trainer.max_steps=100000", f"callbacks.last.every_n_train_steps={every}"
    ) as process:
        try:
            for line in process.stdout:
                if line.startswith(f"step {step} "):
                    break
            else:
                pytest.fail(f"step {step} was never printed: {process.communicate()}")
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    assert json.loads((tmp_path / "killed" / "run.json").read_text())["status"] == "running"
    last = tmp_path / "killed" / "checkpoints" / "last.ckpt"
    # The run goes on until the signal arrives.
    end = max(16, content(tmp_path / "killed")["global_step"] + 1)
    finish(tmp_path / "resumed", folder, small, f"trainer.max_steps={end}", f"checkpoint={last}")
    finish(tmp_path / "straight", folder, small, f"trainer.max_steps={end}")
    assert_same(tmp_path / "straight", tmp_path / "resumed")


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_have_the_lanes_of_one(small, folder, tmp_path):
    two = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.max_steps=6")
    # As in test_ddp.py: in float64, as sums are taken in another order.
    double = ("model.dropout=0", "trainer.precision=64-true", "loader.batch_size=2")
    finish(tmp_path / "one", folder, small, *double, "loader.batch_size=4", "trainer.max_steps=6")
    finish(tmp_path / "two", folder, small, *two, *double)
    one, pair = content(tmp_path / "one"), content(tmp_path / "two")
    torch.testing.assert_close(one["state_dict"], pair["state_dict"], rtol=1e-9, atol=1e-10)
    clips = [carried["clips"].tolist() for carried in pair["resume"]["carried"]]
    assert one["resume"]["carried"][0]["clips"].tolist() == [c for pairs in zip(*clips, strict=True) for c in pairs]
    # Cut in two, with dropout: the same sums in the same order.
    single = (*two, "trainer.precision=32-true")
    finish(tmp_path / "whole", folder, small, *single)
    finish(tmp_path / "half", folder, small, *single, "trainer.max_steps=2")
    last = tmp_path / "half" / "checkpoints" / "last.ckpt"
    finish(tmp_path / "rest", folder, small, *single, f"checkpoint={last}")
    assert_same(tmp_path / "whole", tmp_path / "rest")
    with start(tmp_path / "other", folder, small, "loader.batch_size=4", f"checkpoint={last}") as process:
        _, err = process.communicate(timeout=250)
    assert process.returncode == 1
    assert "world_size=2, this data set has 1" in err
