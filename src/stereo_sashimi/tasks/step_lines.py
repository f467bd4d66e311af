"""StepLines: one line of progress every few steps, in the progress bar, the loggers and the output."""

import resource
import sys
import time
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from stereo_sashimi.data.dataset import Batch


class StepLines(Callback):
    """Bits per sample, samples/s and peak GiB: in the progress bar, in the loggers, and as one line where no terminal.

    `every_n_steps`: optimizer steps between lines; the throughput is the mean over them.
    """

    def __init__(self, every_n_steps: int = 10) -> None:
        self.every_n_steps = max(1, every_n_steps)
        # A tensor once batches are counted: on the device, where nobody has to wait for it.
        self._samples: torch.Tensor | int = 0
        self._since, self._logged_step = 0.0, 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock; a run that resumes inside an epoch does not start that epoch."""
        self._samples, self._since, self._logged_step = 0, time.perf_counter(), trainer.global_step

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock behind validation."""
        self._samples, self._since, self._logged_step = 0, time.perf_counter(), trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Count samples; report every n-th optimizer step."""
        self._samples = self._samples + batch.lengths.sum() * (batch.codes.shape[-1] * trainer.world_size)
        step = trainer.global_step
        if step % self.every_n_steps and step != trainer.max_steps:
            return
        if step == self._logged_step:
            return
        rate = int(self._samples) / max(1e-9, time.perf_counter() - self._since)
        self._samples, self._since, self._logged_step = 0, time.perf_counter(), step
        peak = peak_gib(pl_module.device)
        pl_module.log_dict({"train/samples_per_s": rate, "train/peak_gib": peak}, batch_size=1)
        pl_module.log_dict({"ksamples/s": rate / 1e3, "GiB": peak}, prog_bar=True, logger=False, batch_size=1)
        # No loss is known before the first batch that has a frame behind context_len.
        if trainer.is_global_zero and not sys.stderr.isatty() and "train/loss" in trainer.callback_metrics:
            print(step_line(step, trainer.callback_metrics, rate, peak), flush=True)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the validation line and restart the clock."""
        self._samples, self._since = 0, time.perf_counter()
        metrics = trainer.callback_metrics
        if trainer.is_global_zero and not trainer.sanity_checking and "val/loss" in metrics:
            print(f"val  step {trainer.global_step}  {_bits(metrics, 'val')}", flush=True)


def step_line(step: int, metrics: dict[str, torch.Tensor], samples_per_s: float, peak: float) -> str:
    """`step 200  loss 3.4 nats  4.9 bits/sample (left 4.8 right 5.0)  35.2 k samples/s  1.2 GiB`."""
    return f"step {step}  {_bits(metrics, 'train')}  {samples_per_s / 1e3:.1f} k samples/s  {peak:.2f} GiB"


def _bits(metrics: dict[str, torch.Tensor], split: str) -> str:
    key = f"{split}/bits_per_sample"
    channels = " ".join(f"{k.removeprefix(key + '/')} {v:.3f}" for k, v in metrics.items() if k.startswith(key + "/"))
    line = f"loss {metrics[f'{split}/loss']:.4f} nats  {metrics[key]:.3f} bits/sample"
    return f"{line} ({channels})" if channels else line


def peak_gib(device: torch.device) -> float:
    """Peak memory of this process in GiB: allocated on a CUDA device, resident otherwise."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
