"""SampleLogger: audio that the model draws while it trains, as files and in the loggers."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only
from tensorboard.compat.proto.summary_pb2 import Summary

from stereo_sashimi.audio.io import write_pcm
from stereo_sashimi.generation.engines.engine import NonFiniteOutputError
from stereo_sashimi.generation.sampling import blocks
from stereo_sashimi.plots.sheet import save_png, sheet
from stereo_sashimi.tasks.autoregressive import AutoregressiveTask
from stereo_sashimi.tasks.ema import EMA
from stereo_sashimi.tasks.lightning_internals import find, fitting

log = logging.getLogger(__name__)


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
        except NonFiniteOutputError as error:
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
                _log_audio(logger, folder / f"step-{step}.wav", pcm, spec.sample_rate, step)
                logger.experiment.add_figure("sample/picture", figure, step, close=False)
            elif isinstance(logger, WandbLogger):
                import wandb

                audio = wandb.Audio(pcm.astype(np.float32) / 32768, sample_rate=spec.sample_rate)
                # As WandbLogger logs: wandb counts its own steps and would drop what names an earlier one.
                sample = {"sample/audio": audio, "sample/picture": wandb.Image(figure), "trainer/global_step": step}
                logger.experiment.log(sample)


def _log_audio(logger: TensorBoardLogger, path: Path, pcm: np.ndarray, sample_rate: int, step: int) -> None:
    """All channels in one clip; torch's `add_audio` takes only one."""
    audio = Summary.Audio(
        sample_rate=sample_rate,
        num_channels=pcm.shape[1],
        length_frames=len(pcm),
        encoded_audio_string=path.read_bytes(),
        content_type="audio/wav",
    )
    summary = Summary(value=[Summary.Value(tag="sample/audio", audio=audio)])
    logger.experiment.file_writer.add_summary(summary, step)


@contextmanager
def _any_algorithm() -> Iterator[None]:
    """Lift `trainer.deterministic`: drawing needs cumulative sums, which CUDA refuses under it. Training has none."""
    mode = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("default")
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
