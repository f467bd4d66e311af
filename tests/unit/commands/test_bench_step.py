"""A benchmark's step is the step that Lightning makes, and its rooms are rooms of that step."""

import copy

import pytest
import pytorch_lightning as pl
import torch
from benchmarks import rooms
from benchmarks.clock import load_average, peak_bytes, repeated, warn_if_busy
from benchmarks.config import described
from benchmarks.floor import step_shapes
from benchmarks.layers import s4_layers
from benchmarks.step import Step
from torch.utils.data import DataLoader

from stereo_sashimi.ops.s4_response import KERNELS

CPU = torch.device("cpu")
TINY = (
    *("experiment=audio/sashimi-sample", "trainer=cpu", "model=sashimi_tiny", "model.d_model=4", "model.n_layers=1"),
    *("model.layer.d_state=4", "dataset.sample_len=64", "dataset.bits=8", "loader.batch_size=2", "scheduler=none"),
    "backend=krylov",
)
quiet = pytest.mark.filterwarnings(r"ignore:.*self\.log\(\)")


class OneBatch(DataLoader):
    """A loader that gives what it was given."""

    def __init__(self, batch) -> None:
        super().__init__([0])
        self.batch = batch

    def __iter__(self):
        return iter([self.batch])


@quiet
@pytest.mark.parametrize(
    "overrides",
    [("trainer.gradient_clip_val=0.01",), ("trainer.precision=bf16-mixed", "trainer.gradient_clip_val=null"),
     ("trainer.precision=64-true",)],
    ids=["clipped", "bf16", "float64"],
)  # fmt: skip
def test_a_step_is_the_trainer_s(overrides):
    found = described([*TINY, *overrides])
    step = Step(found)
    task = copy.deepcopy(step.task)
    before = copy.deepcopy(task.state_dict())
    trainer = pl.Trainer(
        accelerator="cpu", max_steps=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, limit_val_batches=0, precision=found.cfg.trainer.precision,
        gradient_clip_val=found.cfg.trainer.gradient_clip_val,
    )  # fmt: skip
    trainer.fit(task, OneBatch(step.batch), OneBatch(step.batch))
    step()
    assert all(p.grad is None for p in step.task.parameters())
    trained = step.task.model.state_dict()
    for name, value in task.model.state_dict().items():
        torch.testing.assert_close(trained[name], value, rtol=0, atol=0)
    moved = [name for name, value in trained.items() if not torch.equal(value, before[f"model.{name}"])]
    assert len(moved) > len(trained) / 2
    assert step.weight_dtype == (torch.float64 if "64-true" in overrides[0] else torch.float32)
    assert step.product_dtype == (torch.bfloat16 if "bf16" in overrides[0] else step.weight_dtype)


def test_codes_are_random_and_of_the_size_that_was_asked_for():
    codes = Step(described([*TINY, "loader.batch_size=3"])).batch.codes
    assert codes.shape == (3, 64, 2)
    assert codes.min() >= 0
    assert 240 < codes.max() < 256


@quiet
@pytest.mark.parametrize("overrides", [(), ("train.carry_state=true",)], ids=["whole", "carried"])
@pytest.mark.parametrize(("backend", "batch"), [("krylov", 2), ("auto", 1)], ids=["kernels", "stepped"])
def test_rooms_leave_the_step_as_it_was(monkeypatch, backend, batch, overrides):
    found = described([*TINY, f"backend={backend}", f"loader.batch_size={batch}", *overrides])
    step = Step(found)
    shapes = step_shapes(found.model, batch, 64)
    original, calls = KERNELS[backend], []

    def kernel(ssm, length, dtype):
        calls.append(length)
        return original(ssm, length, dtype)

    monkeypatch.setitem(KERNELS, backend, kernel)
    alone = rooms.measure_rooms(step, shapes, warmup=1, repeats=2)
    assert list(alone) == ["kernel", "convolution", "channel_mixing", "head", "optimiser"]
    assert all(seconds > 0 for seconds in alone.values())
    # In the kernel's room alone, once to know the shape of its gradient: mixing goes without, the head does not ask.
    lengths = [length for _, length, _ in shapes.layers]
    assert sorted(calls) == (sorted(lengths * 4) if backend == "krylov" else [])
    assert "_hidden" not in vars(step.task)
    assert all("discretize" not in vars(layer.ssm) for layer in s4_layers(step.task.model))
    assert all(p.grad is None for p in step.task.parameters())
    step()


def test_repeated_calls_are_timed_behind_the_warm_up():
    calls = []
    times = repeated(lambda: calls.append(1), CPU, warmup=2, repeats=3)
    assert len(calls) == 5
    assert len(times) == 3
    assert min(times) >= 0


def test_peak_memory_counts_what_was_there():
    before = peak_bytes(CPU)
    assert before > 2**26, "Python and torch"
    size = 2**28
    while peak_bytes(CPU) < before + 2**20:
        # Other tests may have left a higher peak.
        block = torch.ones(size, dtype=torch.uint8)
        size *= 2
        assert size < 2**33
        del block
    assert peak_bytes(CPU) > before


def test_a_busy_machine_is_named(capsys, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    warn_if_busy([1.9, 4.0, 4.0])
    assert capsys.readouterr().err == ""
    warn_if_busy([2.5, 0.0, 0.0])
    assert "warning: this machine is busy: load 2.5 on 4 cores" in capsys.readouterr().err
    assert len(load_average()) == 3
