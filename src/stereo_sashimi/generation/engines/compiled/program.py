"""What the compiled loops read: a model as a `Program`, and the `Rows` that it runs on; numba takes these tuples.

A row is the memory of one recurrence: its states and all that is computed on the way, float32. A vector in it is named
by where it begins and has a multiple of 2 SIMD_WIDTH numbers; those beyond its width are zero.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from stereo_sashimi.distributions.sampler import Sampler
from stereo_sashimi.ops.cpu.constants import SIMD_WIDTH

# Kinds of operations.
NORM, ADVANCE, DENSE, GATED, COPY, PLUS = range(6)
# What DENSE does with its sums: write them, write their GELU, add them to what is there.
WRITE, GELU, ADD = range(3)
MAX_TOP_K = 65536  # no model has more codes


def padded(width: int) -> int:
    """The next multiple of 2 SIMD_WIDTH."""
    return -(-width // (2 * SIMD_WIDTH)) * 2 * SIMD_WIDTH


class Operation(NamedTuple):
    """One operation, from vector `x` to vector `y` of a row.

    Attributes:
        kind: NORM, ADVANCE (a state space model with its skip and GELU), DENSE, GATED (a linear map with GLU, added to
            y), COPY or PLUS (y += x).
        stride: it runs at every `stride`-th frame, when the group of frames below its level is complete.
        x: where its input begins.
        y: where its output begins.
        at: where its weights begin.
        width: channels of NORM, inputs of DENSE and GATED.
        groups: vectors of SIMD_WIDTH numbers of the output.
        modes: of ADVANCE, a channel.
        parts: of ADVANCE, vectors of weights a mode.
        state: of ADVANCE, where its state begins.
        finish: of DENSE: WRITE, GELU or ADD.
        pool: of COPY: frame i of a group of `pool` frames is read `i x_step` behind x and written `i y_step` behind y.
        x_step: see `pool`.
        y_step: see `pool`.
        epsilon: of NORM.
    """

    kind: int
    stride: int
    x: int
    y: int
    at: int = 0
    width: int = 0
    groups: int = 0
    modes: int = 0
    parts: int = 0
    state: int = 0
    finish: int = WRITE
    pool: int = 1
    x_step: int = 0
    y_step: int = 0
    epsilon: float = 0.0


OPERATION = np.dtype([(name, np.float32 if name == "epsilon" else np.int64) for name in Operation._fields], align=True)


class Head(NamedTuple):
    """The head of one sequence.

    Attributes:
        categorical: else a mixture of logistics.
        coupled: whether channels see the earlier ones of their frame.
        n_levels: codes of a channel.
        n_mixtures: logistics of a mixture; 0 if categorical.
        parameters: where a channel's parameters go in a row.
        masses: where the masses of its codes go; categorical only.
        linear: the map to the parameters of each channel, OPERATION.
        coupling: of each channel but the first: to the coefficients of its means, or the first map of its mixer.
        outer: of each channel but the first: the second map of its mixer.
        tables: of the mixers, float32 (pairs of channels, n_levels, width).
    """

    categorical: bool
    coupled: bool
    n_levels: int
    n_mixtures: int
    parameters: int
    masses: int
    linear: np.ndarray
    coupling: np.ndarray
    outer: np.ndarray
    tables: np.ndarray


class Program(NamedTuple):
    """A frozen model. The features that predict the next frame are at the beginning of a row.

    Attributes:
        operations: of the backbone in the order they run, OPERATION.
        weights: of all operations, float32, flat.
        tables: of the embedding, float32 (channels, n_levels, d_model).
        summed: whether their rows are summed, and not side by side.
        embedded: where they go in a row.
        head: see `Head`.
    """

    operations: np.ndarray
    weights: np.ndarray
    tables: np.ndarray
    summed: bool
    embedded: int
    head: Head


class Rows(NamedTuple):
    """The rows from `first` to `last` of `memory`, flat float32, `size` numbers each."""

    memory: np.ndarray
    size: int
    first: int
    last: int


class Sampling(NamedTuple):
    """A `Sampler`; `temperature` is that of the choice of a logistic in a mixture, `top_k` 0 stands for all codes."""

    temperature: float
    scale_temperature: float
    top_k: int
    top_p: float


@lru_cache
def sampling_of(sampler: Sampler) -> Sampling:
    """The numbers of a Sampler."""
    top_k = min(sampler.top_k or 0, MAX_TOP_K)
    return Sampling(float(sampler.of_mixture), float(sampler.of_scale), int(top_k), float(sampler.top_p))
