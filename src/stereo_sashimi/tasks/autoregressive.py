"""AutoregressiveTask: the LightningModule that trains a LanguageModel by the likelihood of the next frame.

One batch: codes (batch, length, channels) -> shifted right behind start codes -> hidden features -> the head's
log-probabilities -> mean over valid frames and channels, in nats. Data come from `data/`, optimizers from `optim.py`.
"""

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from stereo_sashimi.data.dataset import Batch
from stereo_sashimi.metrics.likelihood import Likelihood
from stereo_sashimi.models.language_model_config import LanguageModelConfig
from stereo_sashimi.models.sashimi import Sashimi
from stereo_sashimi.models.torch_compile import compile_blocks, one_graph
from stereo_sashimi.schema import from_plain
from stereo_sashimi.tasks.checkpoints import validates_in_training
from stereo_sashimi.tasks.optim import AdamWConfig, CosineWarmupConfig, PlateauConfig, SchedulerConfig
from stereo_sashimi.tasks.tbptt import Carry

SPLITS = ("train", "val", "test")


class AutoregressiveTask(pl.LightningModule):
    """Training, validation and test of a language model. All arguments are plain, so checkpoints hold no code.

    Args:
        model: Plain fields of a `LanguageModelConfig`.
        optimizer: Plain fields of an `AdamWConfig`.
        scheduler: Plain fields of a scheduler config of `optim.py`; None: constant rates.
        metrics: What is logged beside loss and bits per sample, see `Likelihood`.
        context_len: The loss skips the first n frames of a clip; with `carry_state`, in training, those of a track.
        monitor, mode: What the plateau scheduler watches, and whether "min" or "max" of it is best.
        backend, activation_checkpointing: As in `Sashimi`.
        compile: Run the backbone's blocks and the DML head through torch.compile, see `models/torch_compile.py`.
        frames_per_batch: Valid frames of a full batch of this process, which training losses are divided by. Each
            frame then weighs the same in any batch: accumulated gradients, or those of several processes, equal the
            gradient of the larger batch, padded and short batches included. None: divide by the batch's own frames.
        carry_state: Start each training batch from the state at the end of the one before (`tbptt.py`); needs the
            loader of `AudioDataModule(carry_state=True)`. Validation and test take every clip from its start.
    """

    def __init__(
        self,
        model: dict[str, Any],
        optimizer: dict[str, Any],
        scheduler: dict[str, Any] | None = None,
        metrics: Sequence[str] = ("bpb",),
        context_len: int | None = None,
        monitor: str = "val/loss",
        mode: str = "min",
        backend: str = "auto",
        frames_per_batch: int | None = None,
        carry_state: bool = False,
        compile: bool = False,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        metrics = list(metrics)
        self.save_hyperparameters(ignore=["backend", "frames_per_batch", "compile", "activation_checkpointing"])
        self.frames_per_batch = frames_per_batch
        config = LanguageModelConfig.from_plain(model)
        self.spec = config.spec
        self.model = config.build(backend, activation_checkpointing)
        self.compiled = compile
        self._head_loss = self.model.loss
        if compile:
            if isinstance(self.model.backbone, Sashimi):
                compile_blocks(self.model.backbone)
            if config.decoder.kind == "dml":
                self._head_loss = one_graph(self._head_loss)
        self.optimizer_config = from_plain(optimizer, (AdamWConfig,), "optimizer")
        self.scheduler_config: SchedulerConfig | None = None
        if scheduler is not None:
            self.scheduler_config = from_plain(scheduler, (PlateauConfig, CosineWarmupConfig), "scheduler")
        self.context_len = context_len or 0
        self.carry = Carry() if carry_state else None
        if mode not in ("min", "max"):
            raise ValueError(f"train.mode must be min or max; got {mode!r}.")
        self.monitor, self.mode = monitor, mode
        for split in SPLITS:
            # Numbers of a training step are of this process alone, without synchronisation.
            meter = Likelihood(self.spec.channel_names, self.spec.bits, metrics, sync_on_compute=split != "train")
            self.add_module(f"{split}_likelihood", meter)
        if self.meter("train").needs_rank and not self.model.head.can_rank:
            raise ValueError(
                f"task.metrics has accuracies, but decoder=dml with {self.spec.n_levels} levels has no cheap ranking "
                "of codes. Use task.metrics=[bpb] (the dml experiments do)."
            )

    def meter(self, split: str) -> Likelihood:
        """What counts bits and hits of one split."""
        meter = self.get_submodule(f"{split}_likelihood")
        assert isinstance(meter, Likelihood)
        return meter

    def forward(self, codes: Tensor) -> Tensor:
        """Log-probability of whole clips, (batch, length, channels) nats."""
        return self.model.log_prob(codes)

    def _loss(self, batch: Batch, split: str) -> Tensor:
        """Add a batch to the totals of its split; its mean loss in nats, in training scaled by `frames_per_batch`."""
        skipped: Tensor | int = self.context_len
        if self.carry is not None and split == "train":
            hidden = self.carry.hidden(self.model, batch)
            skipped = self.carry.skipped(batch, self.context_len)
        else:
            hidden = self.model.hidden_for(batch.codes, batch.before)
        meter = self.meter(split)
        frames = torch.arange(batch.codes.shape[1], device=batch.codes.device)
        mask = (frames >= skipped) & (frames < batch.lengths.unsqueeze(-1))
        n_valid = mask.sum()
        weight = mask.to(next(self.model.head.parameters()).dtype) / (n_valid * self.spec.n_channels).clamp_min(1)
        loss, score = self._head_loss(hidden, batch.codes, weight, meter.needs_rank)
        meter.update(score.log_prob, mask, score.rank)
        if split == "train" and self.frames_per_batch is not None:
            loss = loss * (n_valid / self.frames_per_batch)
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Check that the batches of this step continue their tracks; the host synchronises here in any case."""
        if self.carry is not None:
            self.carry.check()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of one batch, see `frames_per_batch`; the numbers logged under train/ are means over the batch."""
        loss = self._loss(batch, "train")
        meter = self.meter("train")
        # Only with a context: reading a device value synchronises the host.
        if self.context_len and not bool(meter.count.any()):
            # Every clip of the batch is shorter than context_len: nothing to learn, nothing to report.
            return loss
        numbers = {f"train/{name}": value.float() for name, value in meter.ratios().items()}
        meter.reset()
        self.log_dict(numbers, batch_size=len(batch.codes))
        self.log("bits", numbers["train/bits_per_sample"], prog_bar=True, logger=False, batch_size=len(batch.codes))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add one batch to the totals of the split."""
        self._loss(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Add one batch to the totals of the split."""
        self._loss(batch, "test")

    def on_validation_epoch_end(self) -> None:
        """Log totals over totals; inside a fit, show the monitored one to the plateau scheduler."""
        numbers = self._log_totals("val")
        scheduler = self.lr_schedulers()
        if validates_in_training(self.trainer) and isinstance(scheduler, ReduceLROnPlateau):
            if self.monitor not in numbers:
                raise ValueError(f"train.monitor={self.monitor} is not validated; there are {', '.join(numbers)}.")
            scheduler.step(numbers[self.monitor])

    def on_test_epoch_end(self) -> None:
        """Log totals over totals."""
        self._log_totals("test")

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Step by step as Lightning asks, but for plateau: it counts validations, wherever a run was cut in two."""
        if not isinstance(scheduler, ReduceLROnPlateau):
            super().lr_scheduler_step(scheduler, metric)

    def _log_totals(self, split: str) -> dict[str, Tensor]:
        meter = self.meter(split)
        numbers = {f"{split}/{name}": value.float() for name, value in meter.compute().items()}
        meter.reset()
        # The meter has summed over processes already.
        self.log_dict(numbers, sync_dist=False, rank_zero_only=False)
        return numbers

    def configure_optimizers(self) -> Any:
        """AdamW with the S4 groups, and the scheduler if there is one."""
        optimizer = self.optimizer_config.build(self.model)
        if self.scheduler_config is None:
            return optimizer
        scheduler = self.scheduler_config.build(optimizer, "max" if self.mode == "max" else "min")
        entry = {"scheduler": scheduler, "interval": self.scheduler_config.interval, "reduce_on_plateau": False}
        return {"optimizer": optimizer, "lr_scheduler": entry}
