"""Lightning callbacks of a training run: one-line progress, audio samples in the loggers; see also `checkpoints.py`."""

import logging
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from stereo_sashimi.audio.io import write_pcm
from stereo_sashimi.data.dataset import Batch
from stereo_sashimi.generation.engines.engine import NonFiniteError
from stereo_sashimi.generation.sampling import blocks
from stereo_sashimi.plots.sheet import save_png, sheet
from stereo_sashimi.tasks.autoregressive import AutoregressiveTask
from stereo_sashimi.tasks.checkpoints import fitting
from stereo_sashimi.tasks.ema import EMA
from stereo_sashimi.tasks.find import find

log = logging.getLogger(__name__)


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


class SampleLogger(Callback):
    """Draws a short piece of audio at validation; WAV and picture go to the run folder and to the loggers.

    - `seconds`: length, at the model's rate. `every_n_validations`: how often. `seed`: of the draw, the same each time.
    """

    def __init__(self, seconds: float = 0.25, every_n_validations: int = 5, seed: int = 0) -> None:
        if seconds <= 0 or every_n_validations < 1:
            raise ValueError(
                "callbacks.samples needs seconds > 0 and every_n_validations >= 1; "
                f"got {seconds} and {every_n_validations}."
            )
        self.seconds, self.every_n_validations, self.seed = seconds, every_n_validations, seed
        self._validations = 0

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw, write and log, on the first process only."""
        if not fitting(trainer):
            return
        self._validations += 1
        if self._validations % self.every_n_validations == 0 and trainer.is_global_zero:
            self._draw(trainer, pl_module)

    @rank_zero_only
    def _draw(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, AutoregressiveTask)
        spec, step = pl_module.spec, trainer.global_step
        n_frames = max(1, round(self.seconds * spec.sample_rate))
        ema = find(trainer, EMA)
        parts = []
        try:
            with _any_algorithm():
                # The weights are read once, here.
                with ema.applied(pl_module) if ema is not None else nullcontext():
                    drawing = blocks(pl_module.model, n_frames, [self.seed])
                for block in drawing:
                    if trainer.received_sigterm:
                        # There are seconds left, and the checkpoint comes after this.
                        return
                    parts.append(block.pcm)
        except NonFiniteError as error:
            # What becomes of such a run is for train.on_nan to say.
            log.warning("No sample is drawn at step %d: %s", step, error)
            return
        pcm = np.concatenate(parts, axis=1)[0]
        figure = sheet(pcm, spec.sample_rate, f"step {step}, seed {self.seed}")
        folder = Path(trainer.default_root_dir) / "samples"
        folder.mkdir(parents=True, exist_ok=True)
        write_pcm(folder / f"step-{step}.wav", pcm, spec.sample_rate)
        save_png(figure, folder / f"step-{step}.png")
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                # TensorBoard plays one channel.
                for c, name in enumerate(spec.channel_names):
                    wave = torch.from_numpy(pcm[None, :, c].astype(np.float32) / 32768)
                    logger.experiment.add_audio(f"sample/{name}", wave, step, sample_rate=spec.sample_rate)
                logger.experiment.add_figure("sample/picture", figure, step, close=False)
            elif isinstance(logger, WandbLogger):
                import wandb

                audio = wandb.Audio(pcm.astype(np.float32) / 32768, sample_rate=spec.sample_rate)
                # As WandbLogger logs: wandb counts its own steps and would drop what names an earlier one.
                sample = {"sample/audio": audio, "sample/picture": wandb.Image(figure), "trainer/global_step": step}
                logger.experiment.log(sample)


@contextmanager
def _any_algorithm() -> Iterator[None]:
    """Lift `trainer.deterministic`: drawing needs cumulative sums, which CUDA refuses under it. Training has none."""
    mode = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("default")
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
