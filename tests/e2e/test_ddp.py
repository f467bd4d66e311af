"""Several processes, and several batches a step, train what one process with the larger batch trains.

All in float64: sums over batches and processes are taken in another order, which moves a weight by round-off only. Adam
divides by sqrt(v) + 1e-8, so that a gradient that is nothing but round-off (1e-17) can move one by 1e-9 of the learning
rate of 4e-3 a step; `TOLERANCE` is far above that, and far below what one step does (1e-3).
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from stereo_sashimi.audio.io import write_pcm

# Five runs are made once for all; their time counts for the first test.
pytestmark = pytest.mark.timeout(900)
ROOT = Path(__file__).resolve().parents[2]
TOLERANCE = {"rtol": 1e-9, "atol": 1e-10}
# 11 clips of 64 frames and one of 30 in each split; a step of 4 clips is a third of an epoch.
FRAMES = 734
OPTIONS = (
    *("trainer.precision=64-true", "dataset.drop_last=false", "scheduler.total_steps=6", "scheduler.warmup_steps=1"),
    *("train.val_chunk_size=5", "loader.batch_size=4", "trainer.gradient_clip_val=1.0"),
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


def content(run: Path) -> dict:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


def moved(run: Path, other: Path) -> float:
    """The largest difference between the weights of two runs."""
    a, b = content(run)["state_dict"], content(other)["state_dict"]
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a if a[name].is_floating_point())


def assert_same_training(run: Path, other: Path) -> None:
    a, b = content(run), content(other)
    assert a["global_step"] == b["global_step"]
    torch.testing.assert_close(a["state_dict"], b["state_dict"], **TOLERANCE)
    moments, others = (c["optimizer_states"][0]["state"] for c in (a, b))
    assert moments
    torch.testing.assert_close(
        [moments[i]["exp_avg"] for i in moments], [others[i]["exp_avg"] for i in moments], **TOLERANCE
    )


@pytest.mark.slow
@pytest.mark.parametrize("context", [None, 20])
def test_accumulated_gradients_are_those_of_the_larger_batch(train, folder, tmp_path, context):
    option = f"dataset.context_len={'null' if context is None else context}"
    # 12 clips: batches of 5, 5, 2 against 5 + 5, 2; the short last batch counts as well.
    for name, accumulate, batch in (("large", 1, 10), ("accumulated", 2, 5), ("small", 1, 5)):
        train(
            *OPTIONS, option, f"loader.batch_size={batch}", f"trainer.accumulate_grad_batches={accumulate}",
            "trainer.max_steps=4", "train.validate_before=false", run=tmp_path / name, data=folder,
        )  # fmt: skip
    assert_same_training(tmp_path / "large", tmp_path / "accumulated")
    assert moved(tmp_path / "large", tmp_path / "small") > 1e-4, "the comparison sees a different batch"


def start(
    run: Path, data: Path, *overrides: str, variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """`python train.py` into the folder `run`, with further environment variables."""
    return subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "experiment=audio/sashimi-sample", f"dataset.path={data}",
         f"hydra.run.dir={run}", *overrides],
        cwd=run.parent,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"} | dict(variables or {}),
        capture_output=True,
        text=True,
        timeout=250,
    )  # fmt: skip


def launch(run: Path, data: Path, *overrides: str) -> tuple[str, dict]:
    """What a run that must succeed printed, and its run.json."""
    done = start(run, data, *overrides)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, json.loads((run / "run.json").read_text())


TWO = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "loader.batch_size=2")


@pytest.fixture(scope="module")
def runs(small, folder, tmp_path_factory) -> dict[str, tuple[Path, str, dict]]:
    """The same training in one process and in two; in two and in float32, whole and with an interruption."""
    root, made = tmp_path_factory.mktemp("ddp"), {}

    def go(name: str, *overrides: str) -> None:
        made[name] = (root / name, *launch(root / name, folder, *small, *OPTIONS, *overrides))

    single = (*TWO, "trainer.precision=32-true", "train.validate_before=false")
    go("one")
    go("two", *TWO)
    go("whole", *single)
    go("half", *single, "trainer.max_steps=2")
    go("rest", *single, f"checkpoint={root / 'half' / 'checkpoints' / 'last.ckpt'}")
    return made


@pytest.mark.slow
def test_two_processes_train_what_one_trains(runs):
    assert_same_training(runs["one"][0], runs["two"][0])


@pytest.mark.slow
def test_validation_totals_are_those_of_one_process(runs):
    # Five clips over two processes: three and two.
    one, two = runs["one"][2], runs["two"][2]
    for when in ("validation_before", "validation_after"):
        assert one[when].keys() == two[when].keys()
        assert two[when] == pytest.approx(one[when], rel=1e-7), "logged in float32"
    assert one["validation_before"]["val/loss"] > one["validation_after"]["val/loss"]


@pytest.mark.slow
def test_a_run_of_two_processes_resumes_exactly(runs):
    # The same sums in the same order: nothing may differ at all.
    whole, rest = content(runs["whole"][0]), content(runs["rest"][0])
    assert whole["global_step"] == rest["global_step"] == 6
    assert all(torch.equal(whole["state_dict"][name], rest["state_dict"][name]) for name in whole["state_dict"])
    moments, again = (c["optimizer_states"][0]["state"] for c in (whole, rest))
    assert all(torch.equal(moments[i]["exp_avg"], again[i]["exp_avg"]) for i in moments)


@pytest.mark.slow
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


@pytest.mark.slow
def test_two_slurm_tasks_are_two_processes(runs, small, folder, tmp_path):
    """What srun does: the same command line twice, with variables that say which task it is."""
    job = {
        "SLURM_JOB_ID": "4242", "SLURM_JOB_NAME": "sashimi", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_NNODES": "1", "SLURM_NODEID": "0", "SLURM_NODELIST": "127.0.0.1", "MASTER_PORT": str(free_port()),
    }  # fmt: skip
    with ThreadPoolExecutor(2) as srun:
        tasks = [
            srun.submit(
                start, tmp_path / "run", folder, *small, *OPTIONS, *TWO,
                variables=job | {"SLURM_PROCID": rank, "SLURM_LOCALID": rank},
            )
            for rank in "01"
        ]  # fmt: skip
        first, second = (task.result() for task in tasks)
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert "finished after 6 steps" in first.stdout
    assert second.stdout == ""
    assert_same_training(runs["two"][0], tmp_path / "run")


@pytest.mark.slow
def test_fewer_validation_clips_than_processes_are_refused(small, folder, tmp_path):
    done = start(
        tmp_path / "run", folder, *small, *OPTIONS, *TWO, "train.val_chunk_size=1", "trainer.num_sanity_val_steps=0"
    )
    assert done.returncode != 0
    assert "the valid split gives 1 clips for 2 processes" in done.stderr
    assert "Traceback" not in done.stderr
