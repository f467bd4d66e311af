"""freeze: a copy of a model for inference, with everything computed once that depends on parameters alone."""

import copy
from typing import TypeVar

import torch
from torch import nn

from stereo_sashimi.nn.embedding import MultiChannelEmbedding, WaveformTable
from stereo_sashimi.nn.pooling import DownPool, UpPool, WeightNormLinear
from stereo_sashimi.nn.s4 import S4, FrozenSSM

Model = TypeVar("Model", bound=nn.Module)


def freeze(model: Model) -> Model:
    """A copy of `model` for inference: state space models discretised, weights normalised and tables made once.

    The same lines of code run on it; only the work that every step would repeat is done here. Later changes of the
    original's parameters do not reach the copy.
    """
    with torch.no_grad():
        model = copy.deepcopy(model).eval().requires_grad_(False)
        for module in list(model.modules()):
            if isinstance(module, S4) and not isinstance(module.ssm, FrozenSSM):
                module.ssm = FrozenSSM(module.ssm.discretize().to(module.D.dtype.to_complex()))
            elif isinstance(module, (DownPool, UpPool)) and isinstance(module.linear, WeightNormLinear):
                module.linear = module.linear.plain().requires_grad_(False)
            elif isinstance(module, MultiChannelEmbedding):
                module.tables = nn.ModuleList(_plain(table) for table in module.tables)
    return model


def _plain(table: nn.Module) -> nn.Module:
    """A table with a row for every code."""
    if not isinstance(table, WaveformTable):
        return table
    return nn.Embedding.from_pretrained(table.rows())
