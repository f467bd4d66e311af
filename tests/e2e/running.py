"""Training as a process, and what runs leave behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import Callback

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    *("trainer=cpu", "model=sashimi_tiny", "model.d_model=4", "model.n_layers=1", "model.layer.d_state=4"),
    *("dataset.sample_len=64", "loader.batch_size=4", "trainer.log_every_n_steps=1", "train.val_chunk_size=4"),
    *("callbacks=no_samples", "trainer.check_val_every_n_epoch=1"),
)
TINY = (*SMALL, "experiment=audio/sashimi-sample", "scheduler.total_steps=3", "scheduler.warmup_steps=1")
CATEGORICAL = ("dataset.bits=8", "decoder=categorical", "encoder.init=normal", "logger=none")
# 11 clips in batches of 2: six steps an epoch.
SIX_STEPS = (*CATEGORICAL, "loader.batch_size=2", "scheduler.total_steps=40", "train.validate_before=false")
DROPOUT = "model.dropout=0.2"
TWO = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")


class Clips(Callback):
    """The clips of each batch with the step behind it, and what each validation measured."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, list[int]]] = []
        self.validations: list[tuple[int, float]] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.seen.append((trainer.global_step, batch.clips.tolist()))

    def on_validation_end(self, trainer, pl_module) -> None:
        self.validations.append((trainer.global_step, float(trainer.callback_metrics["val/loss"])))


class Terminate(Callback):
    """A real signal to this process, from inside a hook of the fit, once."""

    def __init__(self, hook, step, times=1, number=signal.SIGTERM):
        self.sent = False

        def send(trainer, *_):
            if trainer.global_step == step and not trainer.sanity_checking and not self.sent:
                self.sent = True
                for _ in range(times):
                    os.kill(os.getpid(), number)

        setattr(self, hook, send)


def keep_seeds(patch: pytest.MonkeyPatch) -> None:
    """What seed_everything writes into the environment does not reach later tests."""
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        patch.setenv(name, "0")


def last_of(run: Path, name: str = "last") -> Path:
    return run / "checkpoints" / f"{name}.ckpt"


def saved(run: Path, name: str = "last") -> dict[str, Any]:
    """What a checkpoint of a run holds."""
    return torch.load(last_of(run, name), weights_only=True)


def differences(a: object, b: object, where: str = "") -> list[str]:
    """Where two contents differ, to the bit."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return [] if torch.equal(a, b) else [where]
    if isinstance(a, dict) and isinstance(b, dict):
        found = [] if a.keys() == b.keys() else [f"{where}: keys {a.keys() ^ b.keys()}"]
        return found + [d for key in a.keys() & b.keys() for d in differences(a[key], b[key], f"{where}.{key}")]
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        found = [] if len(a) == len(b) else [f"{where}: {len(a)} and {len(b)} entries"]
        pairs = enumerate(zip(a, b, strict=False))
        return found + [d for i, (x, y) in pairs for d in differences(x, y, f"{where}[{i}]")]
    return [] if type(a) is type(b) and a == b else [f"{where}: {a!r} and {b!r}"]


def assert_same(run: Path, other: Path, *parts: str) -> None:
    """The last checkpoints of two runs are equal in these parts and in their number of steps."""
    a, b = saved(run), saved(other)
    assert a["global_step"] == b["global_step"]
    assert differences({part: a[part] for part in parts}, {part: b[part] for part in parts}) == []


def start(
    *words: str, script: str = "train.py", cwd: Path, text: bool = True, **variables: str
) -> subprocess.Popen[Any]:
    """`python train.py` as the leader of a process group of its own, which Ctrl-C reaches."""
    fixed = {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, str(ROOT / script), *words],
        cwd=cwd, env=os.environ | fixed | variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=text,
        # A shell has its jobs in the background ignore Ctrl-C, and with them all that they start.
        start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def finish(*words: str, code: int = 0, script: str = "train.py", cwd: Path, **variables: str) -> tuple[str, str]:
    """Run to the end; standard output and error, without a traceback."""
    process = start(*words, script=script, cwd=cwd, **variables)
    out, err = ended(process)
    assert process.returncode == code, out + err
    return out, err


def ended(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Wait for a process and everything that it started."""
    try:
        out, err = process.communicate(timeout=250)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert "Traceback" not in err + out, err
    return out, err


def wait_for_step(process: subprocess.Popen[str], step: int) -> None:
    """Until it has printed that step; it runs on."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(f"step {step} "):
            return
    pytest.fail(f"step {step} was never printed: {process.communicate()}")
