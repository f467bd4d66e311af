"""Seconds and peak memory of one training step on random codes; keys are those of train.py, no data are needed.

python -m benchmarks train experiment=audio/sashimi-dml-musdb18stereo dataset.sample_len=8192
python -m benchmarks train experiment=audio/sashimi-musdb18mono dataset.bits=8 backend=krylov,recurrent
python -m benchmarks train experiment=audio/sashimi-sample trainer=gpu compile=true bench.profile=true

A step is forward pass, loss and metrics, backward pass, clipping if configured, the optimizer's step, and clearing the
gradients, as Lightning makes it; loading the batch, callbacks, logging and the learning-rate schedule are left out.
bench.profile=true adds a table of the operators that take most time (torch.profiler).
"""

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.profiler import profile

from benchmarks import measure
from benchmarks.configs import Composed, composed
from benchmarks.configs import check as check
from stereo_sashimi.commands.train.allocator import keep_freed_memory
from stereo_sashimi.commands.train.build import build_task
from stereo_sashimi.commands.train.header import device_name
from stereo_sashimi.data.dataset import Batch, collate
from stereo_sashimi.models.torch_compile import check_compiler

PROFILED_STEPS, OPERATORS = 2, 15


@dataclass
class Settings(measure.Settings):
    """`profile`: also say which operators take most time."""

    profile: bool = False


def prepare(words: Sequence[str], settings: Settings) -> dict[str, measure.Work]:
    """The step."""
    step = Step(composed(words))
    facts = {"batch": str(tuple(step.batch.codes.shape)), "device": device_name(str(step.device))}
    if settings.profile:
        step()
        with profile() as profiled:
            for _ in range(PROFILED_STEPS):
                step()
        order = "self_cuda_time_total" if step.device.type == "cuda" else "self_cpu_time_total"
        facts["profile"] = profiled.key_averages().table(sort_by=order, row_limit=OPERATORS)
    return {"step": measure.Work(step, step.batch.codes.numel(), "samples", facts)}


class Step:
    """One training step of the task that train.py builds, on the device and in the precision of the config."""

    def __init__(self, found: Composed) -> None:
        cfg, datamodule, model = found
        # Logging without a trainer is a no-op, and Lightning remarks on it.
        warnings.filterwarnings("ignore", message=r".*self\.log\(\)")
        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
        precision: Any = cfg.trainer.precision
        self.fabric = Fabric(accelerator=cfg.trainer.accelerator, devices=1, precision=precision)
        self.device = self.fabric.device
        if cfg.compile:
            check_compiler(self.device)
        self._clip = cfg.trainer.gradient_clip_val
        torch.manual_seed(cfg.train.seed)
        self.task = build_task(cfg, model, datamodule).to(self.device)
        self.fabric.strategy.precision.convert_module(self.task)
        keep_freed_memory(self.task.model, datamodule.batch_size * datamodule.sample_len)
        configured: Any = self.task.configure_optimizers()
        optimizer = configured["optimizer"] if isinstance(configured, dict) else configured
        self.optimizer: Any = self.fabric.setup_optimizers(optimizer)
        shape = (datamodule.batch_size, datamodule.sample_len, model.spec.n_channels)
        # With a carried state: rows inside their tracks.
        begins = np.empty(0, np.int64) if datamodule.carry_state else None
        codes = enumerate(torch.randint(model.spec.n_levels, shape))
        batch = collate([(clip, index) for index, clip in codes], model.spec.start_code, begins)
        self.batch: Batch = self.fabric.to_device(batch)

    def __call__(self) -> None:
        """Make one step."""
        self.fabric.backward(self.loss())
        self.optimise()
        self.optimizer.zero_grad()

    def loss(self) -> Tensor:
        """The task's training step: forward pass, loss and metrics."""
        carried = None if self.task.carry is None else self.task.carry.value
        if carried is not None:
            # The same codes stand for the clips that follow; other clips would be refused.
            self.batch = self.batch._replace(clips=carried.clips + 1)
        with self.fabric.autocast():
            return self.task.training_step(self.batch, 0)

    def optimise(self) -> None:
        """Clip the gradients, if so configured, and step."""
        if self._clip is not None:
            # Lightning's Trainer does not look whether the norm is finite.
            self.fabric.clip_gradients(self.task, self.optimizer, max_norm=self._clip, error_if_nonfinite=False)
        self.optimizer.step()
