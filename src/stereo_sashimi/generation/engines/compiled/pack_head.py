"""The heads as `draws.py` takes them."""

from collections.abc import Callable

import numpy as np
from torch import nn

from stereo_sashimi.generation.engines.compiled import draw as draws
from stereo_sashimi.generation.engines.compiled.packed_weights import Weights, padded
from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.nn.heads.categorical_head import CategoricalHead, FrameMixer
from stereo_sashimi.nn.heads.logistic_mixture_head import DMLHead
from stereo_sashimi.ops.cpu.constants import SIMD_WIDTH

# Low enough that a code which is none has no mass, high enough that differences stay finite.
NEVER = -1e30


def pack_head(model: LanguageModel, weights: Weights, room: Callable[[int], int]) -> tuple[np.ndarray, np.ndarray]:
    """The description of the head, and its mixers' tables (pairs, n_levels, width)."""
    head, width = model.head, model.backbone.width
    line = np.zeros(draws.CHANNELS + head.n_channels * draws.FIELDS, np.int64)
    line[draws.N_CHANNELS], line[draws.N_LEVELS], line[draws.WIDTH] = head.n_channels, head.n_levels, width
    line[draws.GROUPS], line[draws.COUPLED] = padded(head.d_output) // SIMD_WIDTH, head.n_coupled > 0
    line[draws.PARAMETERS] = room(head.d_output)
    channels = line[draws.CHANNELS :].reshape(-1, draws.FIELDS)
    for channel, linear in zip(channels, head.channels, strict=True):
        channel[draws.LINEAR] = _dense(weights, linear, NEVER if isinstance(head, CategoricalHead) else 0.0)
    tables: list[nn.Module] = []
    if isinstance(head, CategoricalHead):
        line[draws.KIND], line[draws.MASSES] = draws.CATEGORICAL, room(head.d_output)
        line[draws.FEATURES], line[draws.INNER] = room(width), room(width)
        for channel, mixer in zip(channels[1:], head.mixers, strict=False):
            assert isinstance(mixer, FrameMixer)
            channel[draws.COUPLING], channel[draws.OUTER] = _dense(weights, mixer.inner), _dense(weights, mixer.outer)
            tables += mixer.tables
    else:
        assert isinstance(head, DMLHead)
        line[draws.KIND], line[draws.N_MIXTURES] = draws.DML, head.n_mixtures
        line[draws.INNER] = room(head.n_coupled * head.n_mixtures)
        for channel, coupler in zip(channels[1:], head.couplers, strict=False):
            channel[draws.COUPLING] = _dense(weights, coupler)
    mixers = [table.weight.detach().numpy() for table in tables if isinstance(table, nn.Embedding)]
    return line, np.stack(mixers) if mixers else np.zeros((0, head.n_levels, width), np.float32)


def _dense(weights: Weights, linear: nn.Module, fill: float = 0.0) -> int:
    assert isinstance(linear, nn.Linear)
    return weights.dense(linear.weight.detach().numpy(), linear.bias.detach().numpy(), fill)
