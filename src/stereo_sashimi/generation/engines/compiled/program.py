"""What the compiled loops read: a model as a `Program`, and the `Rows` that it runs on; numba takes these tuples.

A row is the memory of one recurrence: its states and all that is computed on the way, float32. A vector in it is named
by where it begins and has a multiple of 2 SIMD_WIDTH numbers; those beyond its width are zero.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from stereo_sashimi.distributions.sampler import Sampler
from stereo_sashimi.experts.plan import Plan
from stereo_sashimi.ops.cpu.constants import SIMD_WIDTH

# Kinds of operations. ADVANCE: a state space model with its skip and GELU. GATED: a linear map with GLU, added to y.
NORM, ADVANCE, DENSE, GATED, COPY, PLUS = range(6)
# What DENSE does with its sums.
WRITE, GELU, ADD = range(3)
MAX_TOP_K = 65536  # no model has more codes


def padded(width: int) -> int:
    """The next multiple of 2 SIMD_WIDTH."""
    return -(-width // (2 * SIMD_WIDTH)) * 2 * SIMD_WIDTH


class Operation(NamedTuple):
    """One operation, from vector `x` to vector `y` of a row, at every `stride`-th frame: when its group is complete."""

    kind: int
    stride: int
    x: int
    y: int
    at: int = 0  # where its weights begin
    width: int = 0  # channels of NORM, inputs of DENSE and GATED
    groups: int = 0  # vectors of SIMD_WIDTH outputs; of GATED those of one half
    modes: int = 0  # ADVANCE: of a channel
    parts: int = 0  # ADVANCE: vectors of weights a mode
    state: int = 0  # ADVANCE: where its state begins
    finish: int = WRITE  # DENSE: WRITE, GELU or ADD
    pool: int = 1  # COPY: frame i of a group of so many is read i x_step behind x and written i y_step behind y
    x_step: int = 0
    y_step: int = 0
    epsilon: float = 0.0  # NORM


# `Operation` as a record of numpy, which numba reads.
OPERATION = np.dtype([(name, np.float32 if name == "epsilon" else np.int64) for name in Operation._fields], align=True)


class PackedHead(NamedTuple):
    """The head of one sequence: categorical, or a mixture of logistics."""

    categorical: bool
    coupled: bool  # whether channels see the earlier ones of their frame
    n_levels: int
    n_mixtures: int  # logistics; 0 if categorical
    unit: float  # LSB in a unit of the means
    parameters: int  # where those of a channel go in a row
    masses: int  # where those of its codes go; categorical only
    linear: np.ndarray  # OPERATION: to the parameters of each channel
    coupling: np.ndarray  # OPERATION of each channel but the first: to what moves its means, or its mixer's first map
    outer: np.ndarray  # OPERATION of each channel but the first: its mixer's second map
    tables: np.ndarray  # float32 (pairs of channels, n_levels, width): of the mixers


class Bank(NamedTuple):
    """Adaptive experts and the head that starts from them."""

    plan: Plan
    said: int  # where what they say goes in a row, N_FRAME numbers a channel
    heard: int  # where their features and errors of the frame behind go, for the backbone
    inputs: int  # where the features of the backbone and of channels lie side by side, for the head
    width: int  # of the backbone
    inner: np.ndarray  # OPERATION of each channel: the first map of its network


class Program(NamedTuple):
    """A frozen model. The features that predict the next frame are at the beginning of a row."""

    operations: np.ndarray  # OPERATION: of the backbone, in the order they run
    weights: np.ndarray  # float32, flat: of all operations
    tables: np.ndarray  # float32 (channels, n_levels, d_model): of the embedding
    summed: bool  # whether their rows are summed, and not side by side
    embedded: int  # where they go in a row
    head: PackedHead
    experts: Bank | None


class Rows(NamedTuple):
    """The rows from `first` to `last` of `memory`, flat float32, `size` numbers each; of experts, their states."""

    memory: np.ndarray
    size: int
    first: int
    last: int
    experts: np.ndarray  # float64 (rows, numbers of a state)


class Sampling(NamedTuple):
    """The numbers of a `Sampler`."""

    temperature: float  # of a mixture: that of the choice of a logistic
    scale_temperature: float
    top_k: int  # 0: all codes
    top_p: float


@lru_cache
def sampling_of(sampler: Sampler) -> Sampling:
    """The numbers of a Sampler."""
    top_k = min(sampler.top_k or 0, MAX_TOP_K)
    return Sampling(float(sampler.of_mixture), float(sampler.of_scale), int(top_k), float(sampler.top_p))
