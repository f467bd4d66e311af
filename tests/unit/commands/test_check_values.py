"""Values of a wrong type are refused by the full name of their key; folders that cannot be made by theirs."""

import copy
import re

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, open_dict

from stereo_sashimi.commands.shared.checks import check_values
from stereo_sashimi.commands.shared.loading import device_of


@pytest.fixture(scope="module")
def composed(request) -> DictConfig:
    with initialize_config_dir(str(request.config.rootpath / "configs"), version_base="1.3"):
        return compose("train", ["experiment=audio/sashimi-sample", "paths.run=runs/mine"])


@pytest.fixture
def cfg(composed) -> DictConfig:
    return copy.deepcopy(composed)


def test_the_configs_are_right(cfg):
    check_values(cfg)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("dataset.context_len", 1.5, "dataset.context_len must be an integer or null; got 1.5"),
        ("dataset.path", "???", "dataset.path has no value. Set it: dataset.path=.."),
        ("loader.pin_memory", "yes", "loader.pin_memory must be true or false; got 'yes'"),
        ("compile", "max-autotune", "compile must be true or false; got 'max-autotune'"),
        ("activation_checkpointing", 1, "activation_checkpointing must be true or false; got 1"),
        ("train.monitor", "val/accuracy", "train.monitor=val/accuracy is not measured; there are val/loss, "),
        ("model.layer.dt_min", "small", "model.layer.dt_min must be a finite number; got 'small'"),
        ("optimizer.lr", float("nan"), "optimizer.lr must be a finite number; got nan"),
        ("callbacks.last.every_n_train_steps", "x", "callbacks.last.every_n_train_steps must be an integer; got 'x'"),
    ],
)
def test_the_key_is_named(cfg, key, value, message):
    section, _, name = key.rpartition(".")
    node = cfg
    for part in section.split(".") if section else ():
        node = node[part]
    with open_dict(node):
        node[name] = value
    with pytest.raises(ValueError, match=re.escape(message)):
        check_values(cfg)


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("dataset", "drop_last", False, "clips of one length, but dataset.drop_last=false keeps shorter ones. Set "
                                        "dataset.drop_last=true, or compile=false."),
        ("backend", "name", "reference", "backend=reference. Use backend=auto, or compile=false."),
    ],
)  # fmt: skip
def test_what_cannot_be_compiled_is_refused(cfg, section, key, value, message):
    cfg[section][key] = value
    check_values(cfg)
    cfg.compile = True
    with pytest.raises(ValueError, match=re.escape(message)):
        check_values(cfg)


@pytest.mark.parametrize(("name", "mps"), [("gpu", False), ("cuda", True)])
def test_a_gpu_where_there_is_none(cfg, monkeypatch, name, mps):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    cfg.trainer.accelerator = name
    with pytest.raises(ValueError, match=rf"trainer\.accelerator={name} needs a GPU.* Use trainer=cpu"):
        check_values(cfg)


@pytest.mark.parametrize("name", ["mps", "gpu"])
def test_a_gpu_without_float64_is_refused(cfg, monkeypatch, name):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    cfg.trainer.accelerator = name
    with pytest.raises(ValueError, match=rf"trainer\.accelerator={name}: .*no float64.*Use trainer=cpu"):
        check_values(cfg)
    with pytest.raises(ValueError, match=r"device=mps: .*no float64.*Use device=cpu"):
        device_of("mps")


@pytest.mark.parametrize("monitor", ["val/bits_per_sample", "val/bpb/left", "train/loss", "val/loss/right"])
def test_what_is_measured_can_be_monitored(cfg, monitor):
    cfg.train.monitor = monitor
    check_values(cfg)
