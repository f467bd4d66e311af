"""From config to objects: what reaches the data module, the model, the task and the trainer."""

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import LearningRateMonitor

from stereo_sashimi.audio.io import write_pcm
from stereo_sashimi.commands.train import build
from stereo_sashimi.tasks.exact_resume import ExactResume
from stereo_sashimi.tasks.nan_guard import NonFiniteGuard
from stereo_sashimi.tasks.optim import PlateauConfig


@pytest.fixture
def cfg(tmp_path) -> DictConfig:
    """A config of plain values, without Hydra."""
    for split in ("train", "valid", "test"):
        (tmp_path / "music" / split).mkdir(parents=True)
        write_pcm(tmp_path / "music" / split / "a.wav", np.zeros((64, 2), np.int16), 44100)
    return OmegaConf.create(
        {
            "paths": {"data_dir": str(tmp_path), "run": str(tmp_path / "run")},
            "dataset": {"_target_": "stereo_sashimi.data.datamodule.AudioDataModule", "name": "music", "path": "music",
                        "is_stereo": True, "bits": 8, "sample_len": 16, "context_len": 3, "pad_len": 2,
                        "__l_max": "${.sample_len}"},
            "loader": {"batch_size": 2},
            "train": {"train_chunk_size": 3, "val_chunk_size": 2, "seed": 7, "monitor": "val/bpb", "mode": "max",
                      "on_nan": "skip", "carry_state": False},
            "encoder": {"_target_": "stereo_sashimi.nn.EmbeddingConfig", "d_model": 4},
            "model": {"_target_": "stereo_sashimi.models.sashimi.SashimiConfig", "d_model": 4, "n_layers": 1,
                      "pool": [2],
                      "layer": {"_target_": "stereo_sashimi.nn.S4DConfig", "d_state": 4}},
            "decoder": {"_target_": "stereo_sashimi.nn.CategoricalHeadConfig", "coupling": "autoregressive"},
            "task": {"_target_": "stereo_sashimi.tasks.AutoregressiveTask", "metrics": ["bpb"]},
            "optimizer": {"_target_": "stereo_sashimi.tasks.optim.AdamWConfig", "lr": 0.01, "betas": [0.8, 0.9]},
            "scheduler": {"_target_": "stereo_sashimi.tasks.optim.PlateauConfig", "patience": 4},
            "backend": {"name": "reference"},
            "compile": False,
            "activation_checkpointing": False,
            "trainer": {"_target_": "pytorch_lightning.Trainer", "accelerator": "cpu", "enable_progress_bar": True,
                        "enable_checkpointing": False},
            "callbacks": {"lr": {"_target_": "pytorch_lightning.callbacks.LearningRateMonitor"}, "off": None},
            "logger": {"csv": {"_target_": "pytorch_lightning.loggers.CSVLogger", "save_dir": "${paths.run}"}},
        }
    )  # fmt: skip


def task_of(cfg: DictConfig):
    data = build.build_datamodule(cfg)
    return build.build_task(cfg, build.build_model_config(cfg, data), data)


def test_the_data_module_gets_data_loader_and_chunk_keys(cfg):
    data = build.build_datamodule(cfg)
    assert (data.d_input, data.n_levels, data.batch_size, data.seed) == (2, 256, 2, 7)
    assert (data.train_chunk_size, data.val_chunk_size) == (3, 2)
    assert data.folder.is_dir()


@pytest.mark.parametrize("is_stereo", [False, True])
def test_the_data_size_the_model(cfg, is_stereo):
    cfg.dataset.is_stereo = is_stereo
    model = task_of(cfg).model
    channels = 2 if is_stereo else 1
    assert model.spec.n_channels == channels
    assert model.embedding.d_output == channels * 4
    assert len(model.head.channels) == channels


@pytest.mark.parametrize("checkpointing", [False, True])
def test_activation_checkpointing_reaches_the_backbone_and_no_checkpoint(cfg, checkpointing):
    cfg.activation_checkpointing = checkpointing
    task = task_of(cfg)
    assert task.model.backbone.activation_checkpointing == checkpointing
    assert not {"compile", "activation_checkpointing"} & set(task.hparams)


def test_everything_that_the_task_is_given_is_plain(cfg):
    task = task_of(cfg)
    assert (task.context_len, task.model.config.pad_len, task.monitor, task.mode) == (3, 2, "val/bpb", "max")
    assert task.optimizer_config.betas == (0.8, 0.9)
    assert task.scheduler_config == PlateauConfig(patience=4)

    def check(value: object) -> None:
        assert type(value) in (dict, list, str, int, float, bool, type(None)), type(value)
        if isinstance(value, dict):
            assert "_target_" not in value
            value = list(value.values())
        for item in value if isinstance(value, list) else ():
            check(item)

    check(dict(task.hparams))
    # The backend is a matter of the machine, not of the model.
    assert "backend" not in task.hparams


@pytest.mark.parametrize(("carry", "frames"), [(True, 2 * 16), (False, 2 * (16 - 3))])
def test_carry_state_reaches_the_data_and_the_task(cfg, carry, frames):
    cfg.train.carry_state, cfg.dataset.pad_len = carry, None
    assert build.build_datamodule(cfg).carry_state is carry
    task = task_of(cfg)
    assert (task.carry is not None) is carry is task.hparams["carry_state"]
    # Inside a track context_len skips nothing.
    assert task.frames_per_batch == frames


def test_segments_have_to_fit_the_pools(cfg):
    cfg.train.carry_state, cfg.dataset.pad_len, cfg.model.pool = True, None, [3, 2]
    with pytest.raises(
        ValueError, match=r"dataset\.sample_len .*multiple of 6.*got 16\. Set dataset\.sample_len=12 or 18"
    ):
        task_of(cfg)
    cfg.dataset.sample_len = 18
    task_of(cfg)


def test_no_scheduler(cfg):
    cfg.scheduler = {"_target_": None}
    assert task_of(cfg).scheduler_config is None


def test_the_trainer_takes_what_is_not_null(cfg):
    trainer = build.build_trainer(cfg)
    assert any(isinstance(callback, LearningRateMonitor) for callback in trainer.callbacks)
    assert [type(logger) for logger in trainer.loggers] == [pl.loggers.CSVLogger]
    assert trainer.default_root_dir == cfg.paths.run


def test_every_trainer_resumes_exactly_and_looks_for_nan(cfg):
    callbacks = build.build_trainer(cfg).callbacks
    (guard,) = (c for c in callbacks if isinstance(c, NonFiniteGuard))
    assert guard.on_nan == "skip"
    # Behind what the config chooses.
    kinds = [type(c) for c in callbacks]
    assert kinds.index(ExactResume) > max(kinds.index(LearningRateMonitor), kinds.index(NonFiniteGuard))
    cfg.train.on_nan = "ignore"
    with pytest.raises(ValueError, match=r"train\.on_nan must be one of stop, skip; got 'ignore'"):
        build.build_trainer(cfg)


def test_a_gpu_without_float64_is_not_chosen(cfg, monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    cfg.trainer.accelerator = "auto"
    assert build.build_trainer(cfg).strategy.root_device.type == "cpu"
