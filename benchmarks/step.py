"""One training step on random codes: the objects that train.py builds, run as Lightning runs them.

A step is `training_step` (forward, loss, metrics) under the precision's autocast, the backward pass, clipping if
`trainer.gradient_clip_val` asks for it, the optimizer's step, and clearing the gradients. Left out: loading and copying
the batch, callbacks (such as the look for NaN), logging, and the learning-rate schedule.
"""

from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from benchmarks.config import Described
from stereo_sashimi.commands.train.build import build_task
from stereo_sashimi.data.dataset import Batch, collate
from stereo_sashimi.models.torch_compile import check_compiler


class Step:
    """A task with its optimizer and one batch, on the device and in the precision that the config names.

    Calling it makes one step. `compiled`, `carries`: whether the config asks for torch.compile and for
    `train.carry_state`.
    """

    def __init__(self, described: Described) -> None:
        cfg, datamodule, model = described
        precision: Any = cfg.trainer.precision
        self.fabric = Fabric(accelerator=cfg.trainer.accelerator, devices=1, precision=precision)
        self.device = self.fabric.device
        self.compiled = bool(cfg.compile)
        self.carries = bool(datamodule.carry_state)
        if self.compiled:
            check_compiler(self.device)
        self._clip = cfg.trainer.gradient_clip_val
        torch.manual_seed(cfg.train.seed)
        task = build_task(cfg, model, datamodule)
        self.task = task.to(self.device)
        self.fabric.strategy.precision.convert_module(self.task)
        configured: Any = self.task.configure_optimizers()
        optimizer = configured["optimizer"] if isinstance(configured, dict) else configured
        self.optimizer: Any = self.fabric.setup_optimizers(optimizer)
        codes = torch.randint(
            model.spec.n_levels, (datamodule.batch_size, datamodule.sample_len, model.spec.n_channels)
        )
        # With a carried state: rows inside their tracks.
        begins = np.empty(0, np.int64) if datamodule.carry_state else None
        batch = collate([(clip, index) for index, clip in enumerate(codes)], model.spec.start_code, begins)
        self.batch: Batch = self.fabric.to_device(batch)

    def __call__(self) -> None:
        """Make one step."""
        self.backward(self.loss())
        self.optimise()
        self.clear()

    def loss(self) -> Tensor:
        """The task's training step: forward pass, loss and metrics."""
        self._go_on()
        with self.fabric.autocast():
            return self.task.training_step(self.batch, 0)

    def features(self) -> Tensor:
        """The part of `loss` before the head: (batch, length, width)."""
        self._go_on()
        with self.fabric.autocast():
            return self.task._hidden(self.batch, "train")

    def _go_on(self) -> None:
        """With a carried state the same codes stand for the clips that follow; other clips would be refused."""
        carried = None if self.task.carry is None else self.task.carry.value
        if carried is not None:
            self.batch = self.batch._replace(clips=carried.clips + 1)

    def backward(self, loss: Tensor) -> None:
        """The backward pass."""
        self.fabric.backward(loss)

    def optimise(self) -> None:
        """Clip the gradients, if so configured, and step."""
        if self._clip is not None:
            # Lightning's Trainer does not look whether the norm is finite.
            self.fabric.clip_gradients(self.task, self.optimizer, max_norm=self._clip, error_if_nonfinite=False)
        self.optimizer.step()

    def clear(self) -> None:
        """Drop the gradients."""
        self.optimizer.zero_grad()

    @property
    def weight_dtype(self) -> torch.dtype:
        """Of the parameters."""
        return next(self.task.model.parameters()).dtype

    @property
    def product_dtype(self) -> torch.dtype:
        """What autocast makes matrix products in; without it that of the parameters."""
        with self.fabric.autocast():
            if torch.is_autocast_enabled(self.device.type):
                return torch.get_autocast_dtype(self.device.type)
        return self.weight_dtype
