"""StepLines: one line of progress every few steps, in the progress bar, the loggers and the output."""

import math
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from stereo_sashimi.data.dataset import Batch
from stereo_sashimi.tasks.lightning_internals import fitting


class StepLines(Callback):
    """Bits per sample, samples/s and peak GiB: in the progress bar, in the loggers, and as one line where no terminal.

    `every_n_steps`: optimizer steps between lines, the first step apart; the throughput is the mean over them.
    """

    def __init__(self, every_n_steps: int = 10) -> None:
        self.every_n_steps = max(1, every_n_steps)
        # A tensor once batches are counted: on the device, where nobody has to wait for it.
        self._samples: torch.Tensor | int = 0
        self._since, self._logged_step = 0.0, 0
        # The step and the time at which training started, and the last step of all if that is known.
        self._start, self._started, self._total = 0, 0.0, math.inf
        self._rate = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock; a run that resumes inside an epoch does not start that epoch."""
        self._restart(trainer)
        self._start, self._started, self._total = trainer.global_step, self._since, trainer.estimated_stepping_batches

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock behind validation."""
        self._restart(trainer)

    def _restart(self, trainer: pl.Trainer) -> None:
        self._samples, self._since, self._logged_step = 0, time.perf_counter(), trainer.global_step

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Note the rate that this step is made with; the last group has the base rate."""
        self._rate = optimizer.param_groups[-1]["lr"]

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Count samples; report the first and every n-th optimizer step."""
        self._samples = self._samples + batch.lengths.sum() * (batch.codes.shape[-1] * trainer.world_size)
        step = trainer.global_step
        first = step == self._start + 1
        if (step % self.every_n_steps and step != trainer.max_steps and not first) or step == self._logged_step:
            return
        rate = int(self._samples) / max(1e-9, time.perf_counter() - self._since)
        self._restart(trainer)
        peak = peak_gib(pl_module.device)
        pl_module.log_dict({"train/samples_per_s": rate, "train/peak_gib": peak}, batch_size=1)
        pl_module.log_dict({"ksamples/s": rate / 1e3, "GiB": peak}, prog_bar=True, logger=False, batch_size=1)
        # No loss is known before the first batch that has a frame behind context_len.
        if trainer.is_global_zero and not sys.stderr.isatty() and "train/loss" in trainer.callback_metrics:
            left = (self._total - step) * (self._since - self._started) / (step - self._start)
            # The first step sets things up, and is no measure of the others.
            times = {"total": self._total, "seconds_left": math.inf if first else left}
            print(step_line(step, trainer.callback_metrics, rate, peak, lr=self._rate, **times), flush=True)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the validation line and restart the clock."""
        self._samples, self._since = 0, time.perf_counter()
        metrics = trainer.callback_metrics
        if trainer.is_global_zero and not trainer.sanity_checking and "val/loss" in metrics:
            # Behind a fit it is the best checkpoint that is validated.
            path = None if fitting(trainer) else trainer.ckpt_path
            where = f"step {trainer.global_step}" if path is None else Path(path).name
            print(f"val  {where}  {_bits(metrics, 'val')}", flush=True)


def step_line(
    step: int,
    metrics: dict[str, torch.Tensor],
    samples_per_s: float,
    peak: float,
    *,
    lr: float,
    total: float = math.inf,
    seconds_left: float = math.inf,
) -> str:
    """`step 20 of 300  loss 3.4 nats  4.9 bits/sample (left 4.8 right 5.0)  lr 0.004  35.2 k samples/s  1.2 GiB  ..`.

    At the end the time left, h:mm:ss. `total` and `seconds_left` are left out where they are infinite.
    """
    of = f" of {int(total)}" if total < math.inf else ""
    left = f"  {timedelta(seconds=round(seconds_left))} left" if seconds_left < math.inf else ""
    numbers = f"{_bits(metrics, 'train')}  lr {lr:.3g}  {samples_per_s / 1e3:.1f} k samples/s  {peak:.2f} GiB"
    return f"step {step}{of}  {numbers}{left}"


def _bits(metrics: dict[str, torch.Tensor], split: str) -> str:
    key = f"{split}/bits_per_sample"
    channels = " ".join(f"{k.removeprefix(key + '/')} {v:.3f}" for k, v in metrics.items() if k.startswith(key + "/"))
    line = f"loss {metrics[f'{split}/loss']:.4f} nats  {metrics[key]:.3f} bits/sample"
    return f"{line} ({channels})" if channels else line


def peak_gib(device: torch.device) -> float:
    """Peak memory of this process in GiB: allocated on a CUDA device, resident otherwise; NaN where it is not told."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    try:
        import resource
    except ImportError:
        # Windows.
        return math.nan
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
