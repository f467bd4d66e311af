"""Several processes, and several batches a step, train what one process with the larger batch trains.

All in float64: sums over batches and processes are taken in another order, which moves a weight by round-off only. Adam
divides by sqrt(v) + 1e-8, so that a gradient that is nothing but round-off (1e-17) can move one by 1e-9 of the learning
rate of 4e-3 a step; `TOLERANCE` is far above that, and far below what one step does (1e-3).
"""

import io
import json
import socket
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import torch
from running import SMALL, TWO, assert_same, ended, finish, keep_seeds, last_of, saved, start

from stereo_sashimi.audio.io import write_pcm
from stereo_sashimi.commands.cli import main

# Three runs are made once for all, in one process of pytest; their time counts for the first test.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
TOLERANCE = {"rtol": 1e-9, "atol": 1e-10}
# 11 clips of 64 frames and one of 30 in each split; a step of 4 clips is a third of an epoch.
FRAMES = 734
OPTIONS = (
    *("trainer.precision=64-true", "dataset.drop_last=false", "scheduler.total_steps=6", "scheduler.warmup_steps=1"),
    *("train.val_chunk_size=5", "loader.batch_size=4", "trainer.gradient_clip_val=1.0"),
    # previous.ckpt is of step 4, in the second epoch.
    "callbacks.last.every_n_train_steps=4",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of unequal lengths: their number of frames differs from batch to batch."""
    root = tmp_path_factory.mktemp("uneven")
    for seed, split in enumerate(("train", "valid", "test")):
        (root / split).mkdir()
        noise = np.random.default_rng(seed).integers(-3000, 3000, (FRAMES, 2)).astype(np.int16)
        write_pcm(root / split / f"{split}.wav", noise, 44100)
    return root


def moved(run: Path, other: Path) -> float:
    """The largest difference between the weights of two runs."""
    a, b = saved(run)["state_dict"], saved(other)["state_dict"]
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a if a[name].is_floating_point())


def assert_same_training(run: Path, other: Path) -> None:
    a, b = saved(run), saved(other)
    assert a["global_step"] == b["global_step"]
    torch.testing.assert_close(a["state_dict"], b["state_dict"], **TOLERANCE)
    moments, others = (c["optimizer_states"][0]["state"] for c in (a, b))
    assert moments
    torch.testing.assert_close(
        [moments[i]["exp_avg"] for i in moments], [others[i]["exp_avg"] for i in moments], **TOLERANCE
    )


def test_accumulated_gradients_are_those_of_the_larger_batch(train, folder, tmp_path):
    # 12 clips: batches of 5, 5, 2 against 5 + 5, 2; the short last batch counts as well, by its frames behind 20.
    for name, accumulate, batch in (("large", 1, 10), ("accumulated", 2, 5), ("small", 1, 5)):
        train(
            *OPTIONS, f"loader.batch_size={batch}", f"trainer.accumulate_grad_batches={accumulate}",
            "dataset.context_len=20", "trainer.max_steps=4", "train.validate_before=false",
            run=tmp_path / name, data=folder,
        )  # fmt: skip
    assert_same_training(tmp_path / "large", tmp_path / "accumulated")
    assert moved(tmp_path / "large", tmp_path / "small") > 1e-4, "the comparison sees a different batch"


def options(run: Path, data: Path, *more: str) -> tuple[str, ...]:
    """The command line of two processes."""
    return (*SMALL, "experiment=audio/sashimi-sample", *OPTIONS, *TWO, "loader.batch_size=2", f"dataset.path={data}",
            f"hydra.run.dir={run}", *more)  # fmt: skip


@pytest.fixture(scope="module")
def runs(folder, tmp_path_factory) -> dict[str, tuple[Path, str, dict]]:
    """The same training in one process, in two, and in two from step 4 on: folder, output, run.json."""
    root, made = tmp_path_factory.mktemp("ddp"), {}

    def keep(name: str, out: str) -> None:
        made[name] = (root / name, out, json.loads((root / name / "run.json").read_text()))

    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as said:
        keep_seeds(patch)
        main("train", options(root / "one", folder, "trainer=cpu", "trainer.devices=1", "loader.batch_size=4"))
    keep("one", said.getvalue())
    for name, more in (("two", ()), ("rest", (f"checkpoint={last_of(root / 'two', 'previous')}",))):
        keep(name, finish(*options(root / name, folder, *more), cwd=root)[0])
    return made


def test_two_processes_train_and_validate_as_one(runs):
    assert_same_training(runs["one"][0], runs["two"][0])
    # Five clips over two processes: three and two.
    one, two = runs["one"][2], runs["two"][2]
    for when in ("validation_before", "validation_after"):
        assert one[when].keys() == two[when].keys()
        assert two[when] == pytest.approx(one[when], rel=1e-7), "logged in float32"
    assert one["validation_before"]["val/loss"] > one["validation_after"]["val/loss"]


def test_a_run_of_two_processes_resumes_exactly(runs):
    assert saved(runs["two"][0], "previous")["global_step"] == 4
    # The same sums in the same order: nothing may differ at all.
    assert_same(runs["two"][0], runs["rest"][0], "state_dict", "optimizer_states")
    assert saved(runs["rest"][0])["global_step"] == 6


def test_only_the_first_process_prints_and_writes(runs):
    def files(run: Path) -> list[str]:
        found = (path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file())
        # One file of events for each call of the trainer, named by time and process.
        return sorted("tensorboard/events" if "tfevents" in name else name for name in found)

    (one, said, _), (two, said_by_two, _) = runs["one"], runs["two"]
    assert files(two) == files(one)
    assert ".hydra/config.yaml" in files(two)
    assert said_by_two.count("\nrun  ") == said.count("\nrun  ") == 1
    assert len(said_by_two.splitlines()) == len(said.splitlines())
    assert "devices=2" in (two / ".hydra" / "overrides.yaml").read_text()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.mark.long
def test_two_slurm_tasks_are_two_processes(runs, folder, tmp_path):
    """What srun does: the same command line twice, with variables that say which task it is."""
    job = {
        "SLURM_JOB_ID": "4242", "SLURM_JOB_NAME": "sashimi", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_NNODES": "1", "SLURM_NODEID": "0", "SLURM_NODELIST": "127.0.0.1", "MASTER_PORT": str(free_port()),
    }  # fmt: skip
    run = tmp_path / "run"
    first, second = (
        start(*options(run, folder), cwd=tmp_path, **job, SLURM_PROCID=rank, SLURM_LOCALID=rank) for rank in "01"
    )
    (out, err), (nothing, other) = ended(first), ended(second)
    assert first.returncode == second.returncode == 0, err + other
    assert "finished after 6 steps" in out
    assert nothing == ""
    assert_same_training(runs["two"][0], run)
