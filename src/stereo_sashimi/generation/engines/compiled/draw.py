"""How the compiled engine draws a frame from the features: the heads' linear maps and couplings.

The heads are those of `nn/categorical_head.py` and `nn/dml_head.py`; `draw_categorical.py` and `draw_mixture.py` draw
one code of one channel.
"""

from typing import no_type_check

import numpy as np

from stereo_sashimi.generation.engines.compiled.draw_categorical import categorical
from stereo_sashimi.generation.engines.compiled.draw_logistic_mixture import mixture
from stereo_sashimi.generation.engines.compiled.layers import ADD, WRITE, dense
from stereo_sashimi.ops.cpu.constants import SIMD_WIDTH
from stereo_sashimi.ops.cpu.vector import compiled, load, store
from stereo_sashimi.ops.cpu.vector_math import gelu

# A head: what it is, where its vectors are in a row's memory, and from CHANNELS on, for each channel, where the weights
# of its linear map begin, and those of its coupling: of the DML coefficients, or of a mixer's two maps.
CATEGORICAL, DML = 0, 1
KIND, N_CHANNELS, N_LEVELS, N_MIXTURES, WIDTH, GROUPS, COUPLED = range(7)
PARAMETERS, MASSES, FEATURES, INNER, CHANNELS = range(7, 12)
LINEAR, COUPLING, OUTER, FIELDS = range(4)


@compiled
@no_type_check
def parameters(head, w, mixers, memory, size, first, last, codes, t, c):
    """Parameters of channel c of frame t to memory[PARAMETERS] of the rows; `codes` has the channels before it."""
    at, x = head[PARAMETERS], 0
    this = head[CHANNELS + c * FIELDS : CHANNELS + (c + 1) * FIELDS]
    moves = c > 0 and head[COUPLED] > 0 and head[KIND] == DML
    if c and head[COUPLED]:
        if head[KIND] == CATEGORICAL:
            x = head[FEATURES]
            _mix(head, w, this, c, mixers, memory, size, first, last, codes, t)
        else:
            groups = -(-c * head[N_MIXTURES] // (2 * SIMD_WIDTH)) * 2
            dense(w, this[COUPLING], head[WIDTH], groups, memory, size, first, last, 0, head[INNER], WRITE)
    dense(w, this[LINEAR], head[WIDTH], head[GROUPS], memory, size, first, last, x, at, WRITE)
    if moves:
        for row in range(first, last):
            base = row * size
            p = memory[base + at : base + at + head[GROUPS] * SIMD_WIDTH]
            _move_means(p, head[N_MIXTURES], memory[base + head[INNER] :], codes[row, t, :c], head[N_LEVELS])


@compiled
@no_type_check
def draw_frame(head, w, mixers, memory, size, first, last, codes, t, uniforms, sampling, log_prob):
    """Draw frame t of the rows, channel after channel, into `codes`, and its log-probability into `log_prob`."""
    at = head[PARAMETERS]
    for c in range(head[N_CHANNELS]):
        parameters(head, w, mixers, memory, size, first, last, codes, t, c)
        for row in range(first, last):
            base, u = row * size, uniforms[row, t, c]
            if head[KIND] == CATEGORICAL:
                room = base + head[MASSES]
                code, log_p = categorical(memory, base + at, room, head[GROUPS], head[N_LEVELS], u[0], sampling)
            else:
                p = memory[base + at : base + at + head[GROUPS] * SIMD_WIDTH]
                code, log_p = mixture(p, head[N_MIXTURES], head[N_LEVELS], u, sampling)
            codes[row, t, c], log_prob[row, t, c] = code, log_p


@compiled
@no_type_check
def _mix(head, w, this, c, mixers, memory, size, first, last, codes, t):
    """z = h + W2 gelu(W1 h + sum_j E_j(code_j)), as `FrameMixer`; mixers (pairs, n_levels, width) has the tables."""
    width, inner, features = head[WIDTH], head[INNER], head[FEATURES]
    groups = -(-width // (2 * SIMD_WIDTH)) * 2
    dense(w, this[COUPLING], width, groups, memory, size, first, last, 0, inner, WRITE)
    for row in range(first, last):
        base = row * size
        for j in range(c):
            table = mixers[c * (c - 1) // 2 + j, codes[row, t, j]]
            for i in range(width):
                memory[base + inner + i] += table[i]
        for i in range(0, groups * SIMD_WIDTH, SIMD_WIDTH):
            store(memory, base + inner + i, gelu(load(memory, base + inner + i)))
            store(memory, base + features + i, load(memory, base + i))
    dense(w, this[OUTER], width, groups, memory, size, first, last, inner, features, ADD)


@compiled
@no_type_check
def _move_means(p, k, coefficients, codes, n_levels):
    for j in range(len(codes)):
        x = np.float32(codes[j]) * np.float32(2 / n_levels) - np.float32(1)
        for i in range(k):
            p[k + i] += coefficients[j * k + i] * x
