"""Golden i as the files that the original's trainer writes: whole Lightning checkpoints, of version 4 and before."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from fixtures import load, state_of
from omegaconf import OmegaConf
from torch import Tensor

TENSORS, CONFIG = load("i_lm_checkpoint")


def state_dict(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Golden i with the keys of version 4."""
    return state_of(TENSORS, "state.", dtype)


def hyper_parameters(**model: Any) -> dict[str, Any]:
    """The configuration of the original's experiment sashimi-youtubemix in the size of golden i."""
    layer = {
        "_name_": "s4", "d_state": 64, "channels": 1, "bidirectional": False, "gate": None, "bottleneck": None,
        "activation": "gelu", "mult_act": None, "final_act": "glu", "dropout": "${..dropout}",
        "tie_dropout": "${oc.select:model.tie_dropout,null}", "mode": "nplr", "init": "legs", "measure": None,
        "rank": 1, "dt_min": 0.001, "dt_max": 0.1, "dt_transform": "softplus",
        "lr": {"dt": 0.001, "A": 0.001, "B": 0.001}, "wd": 0.0, "n_ssm": 1, "l_max": None, "verbose": True,
    }  # fmt: skip
    layer |= model.pop("layer", {})
    return {
        "model": {
            "_name_": "sashimi", "d_model": 8, "n_layers": 1, "pool": [4, 4], "expand": 2, "ff": 2, "prenorm": True,
            "dropout": 0.0, "dropres": 0.0, "initializer": None, "transposed": True, "residual": "R", "norm": "layer",
            "interp": 0, "act_pool": None, "layer": layer,
        } | model,
        "dataset": {
            "_name_": "qautoaudio", "path": "youtube_mix", "bits": 8, "sample_len": 131072, "train_percentage": 0.88,
            "quantization": "mu-law", "drop_last": True, "context_len": None, "pad_len": None,
        },
        "encoder": "embedding",
        "decoder": {"_name_": "sequence", "mode": "last"},
        "loader": {"batch_size": 1, "num_workers": 4, "pin_memory": True, "drop_last": True},
        "train": {"seed": 0, "monitor": "val/loss", "mode": "min", "state": {"n_context_eval": "${.n_context}"}},
        "task": {"_name_": "base", "metrics": ["bpb", "accuracy"]},
    }  # fmt: skip


def content(weights: Mapping[str, Tensor], settings: Mapping[str, Any] | None) -> dict[str, Any]:
    """What Lightning saves beside the weights; `settings` as the OmegaConf object that the original hands it."""
    moments = {"step": torch.tensor(7.0), "exp_avg": torch.zeros(3), "exp_avg_sq": torch.zeros(3)}
    saved: dict[str, Any] = {
        "epoch": 3,
        "global_step": 1200,
        "pytorch-lightning_version": "2.0.1",
        "state_dict": dict(weights),
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"current": {"ready": 4, "completed": 3}}}},
        "callbacks": {
            "ModelCheckpoint{'monitor': 'val/loss'}": {"best_model_score": torch.tensor(1.5), "dirpath": "c"}
        },
        "optimizer_states": [{"state": {0: moments}, "param_groups": [{"lr": 0.001, "betas": (0.9, 0.999)}]}],
        "lr_schedulers": [{"factor": 0.2, "best": 1.5, "patience": 20, "mode_worse": float("inf")}],
        "hparams_name": "config",
    }
    if settings is not None:
        node = OmegaConf.create(dict(settings))
        saved |= {"hyper_parameters": node, "hparams_type": type(node)}
    return saved


def save(path: Path, weights: Mapping[str, Tensor], settings: Mapping[str, Any] | None) -> Path:
    """Write the file."""
    torch.save(content(weights, settings), path)
    return path


def before_version_4(
    real: str = "log_w_real",
    untransform: Callable[[Tensor], Tensor] = lambda x: x,
    weights: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """The numbers of golden i (or `weights`, softplus too) under the names, shapes and signs of the versions before.

    Those had exp for the step size: `inv_dt` becomes the logarithm of the same dt. `untransform` maps log(-Re Lambda)
    to what is stored as `real`.
    """
    old: dict[str, Tensor] = {}
    for key, value in (weights or state_dict(torch.float64)).items():
        place, _, leaf = key.rpartition(".")
        place = place.replace("layer.layer.kernel", "layer.kernel.kernel").replace("layer.layer", "layer")
        if leaf == "inv_dt":
            leaf, value = "log_dt", torch.nn.functional.softplus(value).log().squeeze(-1)
        elif leaf == "A_real":
            leaf, value = real, untransform(value)
        elif leaf == "A_imag":
            leaf, value = "w_imag", -value
        old[f"{place}.{'L' if leaf == 'l_kernel' else leaf}"] = value
    return old
