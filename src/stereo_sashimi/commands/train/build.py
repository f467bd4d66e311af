"""From a composed config to objects: data module, model description, task, trainer. One hop, by `_target_`.

The order is the order of the data: the data set says the number of channels and codes (`d_input`, `n_levels`), which
size the embedding, which sizes the backbone, which sizes the head.
"""

import sys
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from stereo_sashimi.data.datamodule import AudioDataModule
from stereo_sashimi.models.language_model_config import LanguageModelConfig
from stereo_sashimi.models.torch_compile import check_compiler
from stereo_sashimi.nn import ReversibleNormInputConfig, ReversibleNormOutputConfig
from stereo_sashimi.schema import to_plain
from stereo_sashimi.tasks import AutoregressiveTask
from stereo_sashimi.tasks.checkpoints import AtomicCheckpointIO, LastValidation
from stereo_sashimi.tasks.exact_resume import ExactResume
from stereo_sashimi.tasks.nan_guard import NonFiniteGuard
from stereo_sashimi.tasks.tbptt import check_segments


def build_datamodule(cfg: DictConfig) -> AudioDataModule:
    """The data module of `cfg.dataset` with the loader's and the chunk sizes' keys."""
    dataset = {str(k): v for k, v in cfg.dataset.items() if not str(k).startswith("__")}
    datamodule: AudioDataModule = instantiate(
        dataset,
        data_dir=cfg.paths.data_dir,
        train_chunk_size=cfg.train.train_chunk_size,
        val_chunk_size=cfg.train.val_chunk_size,
        carry_state=cfg.train.carry_state,
        seed=cfg.train.seed,
        **cfg.loader,
    )
    return datamodule


def build_model_config(cfg: DictConfig, datamodule: AudioDataModule) -> LanguageModelConfig:
    """The model that `cfg` describes, for the audio that the data set gives."""
    encoder, decoder = instantiate(cfg.encoder), instantiate(cfg.decoder)
    for part in (encoder, decoder):
        if isinstance(part, (ReversibleNormInputConfig, ReversibleNormOutputConfig)):
            part.build()
    experts = None if cfg.get("experts") is None else instantiate(cfg.experts, _convert_="all")
    if (experts is not None) != (datamodule.warm_up > 0):
        raise ValueError(
            f"experts={'null' if experts is None else 'adaptive'} with dataset.warm_up={datamodule.warm_up}: experts "
            "need frames in front of each clip to adapt to, and nobody else reads them. Set dataset.warm_up=16384, or "
            "0 without experts."
        )
    return LanguageModelConfig(
        spec=datamodule.spec,
        encoder=encoder,
        model=instantiate(cfg.model, _convert_="all"),
        decoder=decoder,
        pad_len=datamodule.pad_len or 0,
        experts=experts,
    )


def build_task(cfg: DictConfig, model: LanguageModelConfig, datamodule: AudioDataModule) -> AutoregressiveTask:
    """The LightningModule; everything it is given is plain, and goes into its checkpoints."""
    if carry_state := datamodule.carry_state:
        check_segments(datamodule.sample_len, model.model.stride, model.pad_len)
    # Inside a track the loss skips nothing.
    skipped = 0 if carry_state else datamodule.context_len or 0
    scheduler = None if cfg.scheduler.get("_target_") is None else to_plain(instantiate(cfg.scheduler))
    task: AutoregressiveTask = instantiate(
        cfg.task,
        model=model.to_plain(),
        optimizer=to_plain(instantiate(cfg.optimizer, _convert_="all")),
        scheduler=scheduler,
        context_len=datamodule.context_len,
        monitor=cfg.train.monitor,
        mode=cfg.train.mode,
        backend=cfg.backend.name,
        compile=cfg.compile,
        activation_checkpointing=cfg.activation_checkpointing,
        frames_per_batch=datamodule.batch_size * (datamodule.sample_len - skipped),
        carry_state=carry_state,
        _convert_="all",
    )
    return task


def build_trainer(cfg: DictConfig) -> pl.Trainer:
    """Lightning's Trainer with the callbacks and loggers that are not null.

    Raises BackendError if `compile` is true and torch.compile does not run on the trainer's device.
    """

    def each(section: str) -> list[Any]:
        return [instantiate(node) for node in cfg[section].values() if node is not None]

    # A trainer cannot train with a callback that looks at a learning rate no logger takes.
    loggers = each("logger")
    callbacks = [c for c in each("callbacks") if loggers or not isinstance(c, pl.callbacks.LearningRateMonitor)]
    # Not among the callbacks to choose: no run is to be trusted without them. ExactResume comes last.
    callbacks += [NonFiniteGuard(cfg.train.on_nan), LastValidation(), ExactResume()]
    # Lightning would take Apple's GPU, which has no float64.
    apple = cfg.trainer.accelerator == "auto" and torch.backends.mps.is_available()
    trainer: pl.Trainer = instantiate(
        cfg.trainer,
        accelerator="cpu" if apple else cfg.trainer.accelerator,
        callbacks=callbacks,
        logger=loggers or False,
        default_root_dir=cfg.paths.run,
        plugins=[AtomicCheckpointIO()],
        # In a file or a pipe the step lines say the same.
        enable_progress_bar=cfg.trainer.enable_progress_bar and sys.stderr.isatty(),
        _convert_="all",
    )
    if cfg.compile:
        check_compiler(trainer.strategy.root_device)
    return trainer
