"""How the compiled engine draws a frame from the features: the heads' linear maps, couplings and inverse CDFs.

The mathematics is that of `distributions/categorical.py` and `distributions/dml.py`, the heads are those of
`nn/categorical_head.py` and `nn/dml_head.py`. Probabilities are summed in float64.
"""

import math
from typing import no_type_check

import numpy as np

from stereo_sashimi.distributions.dml import LOG_SCALE_LSB, MEAN_LSB
from stereo_sashimi.generation.compiled.layers import ADD, WRITE, dense
from stereo_sashimi.ops.recurrent import LANES
from stereo_sashimi.ops.simd import compiled, load, store
from stereo_sashimi.ops.simd_math import exp_of_negative, gelu, larger, product, splat, total

# A head: what it is, where its vectors are in a row's memory, and from CHANNELS on, for each channel, where the weights
# of its linear map begin, and those of its coupling: of the DML coefficients, or of a mixer's two maps.
CATEGORICAL, DML = 0, 1
(KIND, N_CHANNELS, N_LEVELS, N_MIXTURES, WIDTH, GROUPS, COUPLED, PARAMETERS, MASSES, FEATURES, INNER, CHANNELS) = range(
    12
)
LINEAR, COUPLING, OUTER, FIELDS = range(4)
# Columns of `sampling`.
TEMPERATURE, SCALE_TEMPERATURE, TOP_K, TOP_P, N_SAMPLING = range(5)


@compiled
@no_type_check
def draw_frame(head, w, mixers, memory, size, first, last, codes, t, uniforms, sampling, log_prob):
    """Draw frame t of the rows, channel after channel, into `codes`, and its log-probability into `log_prob`."""
    at = head[PARAMETERS]
    for c in range(head[N_CHANNELS]):
        this = head[CHANNELS + c * FIELDS : CHANNELS + (c + 1) * FIELDS]
        x = 0
        if c and head[COUPLED]:
            if head[KIND] == CATEGORICAL:
                x = head[FEATURES]
                _mix(head, w, this, c, mixers, memory, size, first, last, codes, t)
            else:
                groups = -(-c * head[N_MIXTURES] // (2 * LANES)) * 2
                dense(w, this[COUPLING], head[WIDTH], groups, memory, size, first, last, 0, head[INNER], WRITE)
        dense(w, this[LINEAR], head[WIDTH], head[GROUPS], memory, size, first, last, x, at, WRITE)
        for row in range(first, last):
            base, u = row * size, uniforms[row, t, c]
            if head[KIND] == CATEGORICAL:
                room = base + head[MASSES]
                code, log_p = categorical(memory, base + at, room, head[GROUPS], head[N_LEVELS], u[0], sampling)
            else:
                k, p = head[N_MIXTURES], memory[base + at : base + at + head[GROUPS] * LANES]
                if c and head[COUPLED]:
                    _move_means(p, k, memory[base + head[INNER] :], codes[row, t, :c], head[N_LEVELS])
                code, log_p = mixture(p, k, head[N_LEVELS], u, sampling)
            codes[row, t, c], log_prob[row, t, c] = code, log_p


@compiled
@no_type_check
def _mix(head, w, this, c, mixers, memory, size, first, last, codes, t):
    """z = h + W2 gelu(W1 h + sum_j E_j(code_j)), as `FrameMixer`; mixers (pairs, n_levels, width) has the tables."""
    width, inner, features = head[WIDTH], head[INNER], head[FEATURES]
    groups = -(-width // (2 * LANES)) * 2
    dense(w, this[COUPLING], width, groups, memory, size, first, last, 0, inner, WRITE)
    for row in range(first, last):
        base = row * size
        for j in range(c):
            table = mixers[c * (c - 1) // 2 + j, codes[row, t, j]]
            for i in range(width):
                memory[base + inner + i] += table[i]
        for i in range(0, groups * LANES, LANES):
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


@compiled
@no_type_check
def categorical(memory, logits, masses, groups, n_levels, uniform, sampling):
    """A code and its log-probability. memory[logits] has whole vectors, filled up with -1e30; [masses] has room."""
    top = _largest(memory, logits, groups, masses)
    everything = _masses(memory, logits, masses, groups, top, 1.0)
    if sampling[TEMPERATURE] == 0:
        code = 0
        while memory[logits + code] < top:
            code += 1
    else:
        drawn_from = everything
        if sampling[TEMPERATURE] != 1:
            drawn_from = _masses(memory, logits, masses, groups, top, 1 / sampling[TEMPERATURE])
        if sampling[TOP_K] > 0 or sampling[TOP_P] < 1:
            p = memory[masses : masses + n_levels]
            drawn_from = _keep_likely(p, drawn_from, int(sampling[TOP_K]), sampling[TOP_P])
        code = min(_first_beyond(memory, masses, groups, uniform * drawn_from), n_levels - 1)
    return code, float(memory[logits + code]) - float(top) - math.log(everything)


@compiled
@no_type_check
def _largest(memory, x, groups, room):
    highest = load(memory, x)
    for i in range(LANES, groups * LANES, LANES):
        highest = larger(load(memory, x + i), highest)
    store(memory, room, highest)
    top = memory[room]
    for i in range(1, LANES):
        top = max(top, memory[room + i])
    return top


@compiled
@no_type_check
def _masses(memory, logits, masses, groups, top, factor):
    """exp((logits - top) factor) to memory[masses]; their sum in float64."""
    everything = 0.0
    for i in range(0, groups * LANES, LANES):
        mass = exp_of_negative(product(load(memory, logits + i) - splat(top), splat(factor)))
        store(memory, masses + i, mass)
        everything += total(mass)
    return everything


@compiled
@no_type_check
def _first_beyond(memory, masses, groups, target):
    """The first code at which the running sum of masses exceeds `target`, summed as `_masses` does."""
    before = 0.0
    for i in range(masses, masses + groups * LANES, LANES):
        after = before + total(load(memory, i))
        if after > target:
            last = i
            for j in range(i, i + LANES):
                before += memory[j]
                if memory[j] > 0:
                    last = j
                    if before > target:
                        break
            return last - masses
        before = after
    # Only rounding at the very end comes here: the last code that has mass.
    last = groups * LANES - 1
    while last > 0 and memory[masses + last] == 0:
        last -= 1
    return last


@compiled
@no_type_check
def _keep_likely(p, everything, top_k, top_p):
    """Zero the masses that top_k and top_p cut off (ties stay with the lower code); the sum of the others."""
    order = np.argsort(-p, kind="mergesort")
    k = len(p) if top_k == 0 else min(top_k, len(p))
    if k < len(p):
        everything = 0.0
        for i in range(k):
            everything += p[order[i]]
    kept = 0.0
    for i in range(len(p)):
        # A code stays while the codes before it hold less than top_p of the mass that top_k left.
        if i < k and kept < top_p * everything:
            kept += p[order[i]]
        else:
            p[order[i]] = 0
    return kept


@compiled
@no_type_check
def mixture(p, k, n_levels, uniforms, sampling):
    """A code and its log-probability under the mixture of k logistics with parameters `p` (`distributions/dml.py`)."""
    top = p[0]
    for i in range(1, k):
        top = max(top, p[i])
    everything = 0.0
    for i in range(k):
        everything += math.exp(float(p[i]) - top)
    chosen = _component(p, k, top, uniforms[0], sampling[TEMPERATURE])
    mean, log_scale = _logistic(p, k, chosen, n_levels)
    position = mean
    if sampling[SCALE_TEMPERATURE] > 0:
        u = uniforms[1]
        if u == 0:
            position = -math.inf
        else:
            position += math.exp(log_scale) * sampling[SCALE_TEMPERATURE] * (math.log(u) - math.log1p(-u))
    code = int(min(max(math.floor(position + (n_levels / 2 + 0.5)), 0.0), n_levels - 1.0))
    highest = -math.inf
    cells = np.empty(k)
    for i in range(k):
        mean, log_scale = _logistic(p, k, i, n_levels)
        cells[i] = float(p[i]) - top - math.log(everything) + _log_cell(mean, log_scale, code, n_levels)
        highest = max(highest, cells[i])
    mass = 0.0
    for i in range(k):
        mass += math.exp(cells[i] - highest)
    return code, highest + math.log(mass)


@compiled
@no_type_check
def _component(p, k, top, uniform, temperature):
    if temperature == 0:
        for i in range(k):
            if p[i] == top:
                return i
    everything = 0.0
    for i in range(k):
        everything += math.exp((float(p[i]) - top) / temperature)
    running, chosen = 0.0, 0
    for i in range(k):
        mass = math.exp((float(p[i]) - top) / temperature)
        if mass > 0:
            chosen = i
        running += mass
        if running > uniform * everything:
            break
    return chosen


@compiled
@no_type_check
def _logistic(p, k, i, n_levels):
    """Mean and log-scale of logistic i, in LSB."""
    mean = _soft_bound(float(p[k + i]) * (n_levels / 2), MEAN_LSB[0], MEAN_LSB[1])
    return mean, _soft_bound(float(p[2 * k + i]) + math.log(n_levels / 2), LOG_SCALE_LSB[0], LOG_SCALE_LSB[1])


@compiled
@no_type_check
def _soft_bound(x, low, high):
    if x > high:
        return high + 1 - 1 / (1 + (x - high))
    if x < low:
        return low - 1 + 1 / (1 + (low - x))
    return x


@compiled
@no_type_check
def _log_cell(mean, log_scale, code, n_levels):
    position, width = code - n_levels / 2, math.exp(-log_scale)
    below_upper = _log_sigmoid((position + 0.5 - mean) * width)
    above_lower = _log_sigmoid(-(position - 0.5 - mean) * width)
    if code == 0:
        return below_upper
    if code == n_levels - 1:
        return above_lower
    return below_upper + above_lower + math.log(-math.expm1(-width))


@compiled
@no_type_check
def _log_sigmoid(x):
    return min(x, 0.0) - math.log1p(math.exp(-abs(x)))
