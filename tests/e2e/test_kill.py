"""`kill -9`: a run killed anywhere and resumed in a new process ends as the run that was left alone, to the bit."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
STEPS = 20
# Six batches an epoch, so steps fall everywhere in it; dropout makes the random generators count.
OPTIONS = (
    "experiment=audio/sashimi-sample", "dataset.bits=8", "decoder=categorical", "encoder.init=normal", "logger=none",
    "loader.batch_size=2", "model.dropout=0.2", "train.validate_before=false", "scheduler.total_steps=40",
)  # fmt: skip
EMA = ("callbacks=ema", "callbacks.samples=null", "callbacks.ema.decay=0.9")
PARTS = ("state_dict", "optimizer_states", "lr_schedulers", "AudioDataModule", "resume", "loops", "callbacks")


@pytest.fixture(scope="module")
def command(small, stereo_folder):
    """The command line of a run in a folder."""

    def make(run: Path, *options: str) -> list[str]:
        paths = (f"dataset.path={stereo_folder}", f"paths.run={run}", f"hydra.run.dir={run}/hydra")
        return [sys.executable, str(ROOT / "train.py"), *OPTIONS[:1], *small, *OPTIONS[1:], *paths, *options]

    return make


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def finish(command: list[str]) -> None:
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr


def kill_at(command: list[str], step: int) -> None:
    """Start, and send SIGKILL to it and its workers once it has printed that step; it runs on until that arrives."""
    with subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if line.startswith(f"step {step} "):
                    break
            else:
                pytest.fail(f"step {step} was never printed: {process.communicate()}")
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL


def content(run: Path) -> dict:
    saved = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    for name, state in saved["callbacks"].items():
        # Where best.ckpt lies is the one thing that is another.
        if name.startswith("BestCheckpoint"):
            saved["callbacks"][name] = {k: v for k, v in state.items() if "path" not in k and k not in ("dirpath",)}
            saved["callbacks"][name]["best_k_models"] = list(state["best_k_models"].values())
    return saved


def differences(a: object, b: object, where: str = "") -> list[str]:
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


@pytest.fixture(scope="module")
def straight(command, tmp_path_factory):
    """What a run that nobody disturbs ends with; one for each set of options."""
    cache: dict[tuple[str, ...], dict] = {}

    def of(*options: str) -> dict:
        if options not in cache:
            run = tmp_path_factory.mktemp("straight")
            finish(command(run, *options, f"trainer.max_steps={STEPS}"))
            cache[options] = content(run)
        return cache[options]

    return of


def kill_and_resume(command, folder: Path, expected: dict, options: tuple[str, ...], every: int, step: int) -> None:
    """Kill a run that saves every `every` steps at `step` or behind it, resume it, and compare."""
    # It would run on for long: the kill decides when it ends.
    endless = ("trainer.max_steps=100000", f"callbacks.last.every_n_train_steps={every}")
    kill_at(command(folder / "killed", *options, *endless), step)
    assert json.loads((folder / "killed" / "run.json").read_text())["status"] == "running"
    last = folder / "killed" / "checkpoints" / "last.ckpt"
    saved = torch.load(last, weights_only=True)["global_step"]
    # The line is printed just before the step is saved.
    assert (step - 1) // every * every <= saved < STEPS
    finish(command(folder / "resumed", *options, f"trainer.max_steps={STEPS}", f"checkpoint={last}"))
    found = content(folder / "resumed")
    assert found["global_step"] == expected["global_step"] == STEPS
    assert differences({p: expected[p] for p in PARTS}, {p: found[p] for p in PARTS}) == []


def random_kills(seed: int, count: int = 5) -> list[tuple[int, int]]:
    """(save every so many steps, kill at this step or just behind): with steps lost, and amid saves at every step."""
    rng = random.Random(seed)
    return [(rng.choice((1, 3, 4)), rng.randint(5, 11)) for _ in range(count)]


def some_of(kills):
    """One of them for CI, all for `make long`."""
    return [pytest.param(*kill, marks=[pytest.mark.long] * (i > 0)) for i, kill in enumerate(kills)]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("every", "step"), some_of(random_kills(0)))
def test_killed_and_resumed_is_left_alone(command, straight, tmp_path, every, step):
    kill_and_resume(command, tmp_path, straight(), (), every, step)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("every", "step"), some_of(random_kills(1)))
def test_with_loader_workers_that_read_ahead(command, straight, tmp_path, every, step):
    # Their number changes nothing, so the straight run without them is the one to equal.
    kill_and_resume(command, tmp_path, straight(), ("loader.num_workers=2",), every, step)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "options",
    [
        pytest.param(("trainer.accumulate_grad_batches=2",), id="accumulated gradients"),
        pytest.param(EMA, id="averaged weights", marks=pytest.mark.long),
        pytest.param(
            ("trainer.val_check_interval=4", "trainer.deterministic=true"),
            id="validation inside epochs",
            marks=pytest.mark.long,
        ),
    ],
)
def test_with_options(command, straight, tmp_path, options):
    kill_and_resume(command, tmp_path, straight(*options), options, 2, 7)
