"""Optimizer and scheduler: AdamW with the parameter groups of S4, and the two learning-rate schedules."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from stereo_sashimi.nn.block import ScalarNorm
from stereo_sashimi.nn.s4 import SSMParameters

GROUPS = ("ssm", "ssm_output", "no_decay", "decay")


@dataclass(frozen=True)
class AdamWConfig:
    """AdamW as the original trains S4.

    - `lr`, `weight_decay`, `betas`: of torch.optim.AdamW.
    - `ssm_lr`: fixed learning rate of dt, Lambda, B and P, without weight decay; null for the base rate.
    """

    kind: ClassVar[str] = "adamw"
    lr: float = 0.004
    weight_decay: float = 0.0
    betas: Sequence[float] = (0.9, 0.999)
    ssm_lr: float | None = 0.001

    def __post_init__(self) -> None:
        # Lists come from YAML and JSON; a tuple keeps configs equal and hashable.
        object.__setattr__(self, "betas", tuple(self.betas))
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"optimizer.betas must be two numbers in [0, 1); got {list(self.betas)}.")
        if self.lr <= 0 or (self.ssm_lr is not None and self.ssm_lr <= 0):
            raise ValueError(f"optimizer.lr and optimizer.ssm_lr must be positive; got {self.lr} and {self.ssm_lr}.")
        if self.weight_decay < 0:
            raise ValueError(f"optimizer.weight_decay must not be negative; got {self.weight_decay}.")

    def build(self, model: nn.Module) -> torch.optim.AdamW:
        """The optimizer with its groups in the fixed order of `GROUPS`, so that resuming never mixes them up."""
        ssm_lr = self.lr if self.ssm_lr is None else self.ssm_lr
        options = {
            "ssm": {"lr": ssm_lr, "weight_decay": 0.0},
            "ssm_output": {"lr": self.lr, "weight_decay": self.weight_decay},
            "no_decay": {"lr": self.lr, "weight_decay": 0.0},
            "decay": {"lr": self.lr, "weight_decay": self.weight_decay},
        }
        groups = parameter_groups(model)
        return torch.optim.AdamW(
            [{"params": list(groups[name].values()), "name": name, **options[name]} for name in GROUPS if groups[name]],
            betas=(self.betas[0], self.betas[1]),
        )


def parameter_groups(model: nn.Module) -> dict[str, dict[str, nn.Parameter]]:
    """Every trainable parameter in exactly one group, in the order of `named_parameters`.

    ssm         dt, Lambda, B, P of state space models (their own learning rate, no decay)
    ssm_output  C
    no_decay    biases and norms of the backbone
    decay       everything else: matrices, D, embedding tables, the head with its bias
    """
    kinds: dict[str, str] = {}
    for prefix, module in model.named_modules():
        in_head = prefix.split(".")[0] == "head"
        for name, _ in module.named_parameters(recurse=False):
            full = f"{prefix}.{name}" if prefix else name
            if isinstance(module, SSMParameters):
                kinds[full] = "ssm_output" if name == "C" else "ssm"
            elif isinstance(module, (nn.LayerNorm, ScalarNorm)) or (name == "bias" and not in_head):
                kinds[full] = "no_decay"
            else:
                kinds[full] = "decay"
    groups: dict[str, dict[str, nn.Parameter]] = {name: {} for name in GROUPS}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[kinds[name]][name] = parameter
    return groups


@dataclass(frozen=True)
class PlateauConfig:
    """Multiply every learning rate by `factor` after `patience` validations without improvement of the monitor."""

    kind: ClassVar[str] = "plateau"
    interval: ClassVar[str] = "epoch"
    factor: float = 0.2
    patience: int = 20
    min_lr: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.factor < 1 or self.patience < 0:
            raise ValueError(
                f"scheduler needs 0 < factor < 1 and patience >= 0; got {self.factor} and {self.patience}."
            )

    def build(self, optimizer: torch.optim.Optimizer, mode: Literal["min", "max"]) -> ReduceLROnPlateau:
        """The torch scheduler; `mode` is "min" or "max"."""
        return ReduceLROnPlateau(optimizer, mode=mode, factor=self.factor, patience=self.patience, min_lr=self.min_lr)


@dataclass(frozen=True)
class CosineWarmupConfig:
    """Linear warm-up over `warmup_steps`, then half a cosine down to `min_factor` of each rate at `total_steps`."""

    kind: ClassVar[str] = "cosine_warmup"
    interval: ClassVar[str] = "step"
    total_steps: int = 100_000
    warmup_steps: int = 1000
    min_factor: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.warmup_steps < self.total_steps:
            raise ValueError(
                f"scheduler needs 0 <= warmup_steps < total_steps; got {self.warmup_steps} and {self.total_steps}."
            )

    def factor(self, step: int) -> float:
        """What the base rates are multiplied by at optimizer step `step` (0 is the first)."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        progress = min(1.0, (step - self.warmup_steps) / (self.total_steps - self.warmup_steps))
        return self.min_factor + (1 - self.min_factor) * 0.5 * (1 + math.cos(math.pi * progress))

    def build(self, optimizer: torch.optim.Optimizer, mode: Literal["min", "max"]) -> LRScheduler:
        """The torch scheduler; `mode` plays no part."""
        # torch saves the attributes of anything but a plain function in checkpoints.
        return LambdaLR(optimizer, lambda step: self.factor(step))


SchedulerConfig = PlateauConfig | CosineWarmupConfig
