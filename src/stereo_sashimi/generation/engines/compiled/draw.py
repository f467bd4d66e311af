"""How the compiled engine draws frames: the linear maps and couplings of the heads, and a code of one channel.

Compiled by numba. The heads are those of `nn/heads`, the distributions those of `distributions/`: categorical codes by
inverse CDF, masses and their sums over SIMD_WIDTH in float32; codes of a mixture of logistics in float64.
"""

import math
from typing import no_type_check

import numpy as np

from stereo_sashimi.distributions.logistic_mixture import LOG_SCALE_LSB, MEAN_LSB
from stereo_sashimi.generation.engines.compiled.step import ask, centre, dense, feed, shift
from stereo_sashimi.ops.cpu.constants import SIMD_WIDTH
from stereo_sashimi.ops.cpu.vector import compiled, load, store
from stereo_sashimi.ops.cpu.vector_math import exp_of_negative, gelu, if_negative, larger, product, splat, total


@compiled
@no_type_check
def run(program, rows, phase, codes, uniforms, sampling, log_prob, hidden):
    """All frames of `codes` (rows, frames, channels).

    With `uniforms` (rows, frames, channels, n_uniforms) of as many frames, frames are drawn into `codes`, and
    `log_prob` of the shape of `codes` is filled; with none they are given. `hidden` (rows, frames, width), if it has
    frames, takes the features after each.
    """
    draws, keeps, memory = uniforms.shape[1] > 0, hidden.shape[1] > 0, rows.memory
    for t in range(codes.shape[1]):
        if draws:
            draw_frame(program, rows, codes, t, uniforms, sampling, log_prob)
        feed(program, rows, phase, codes, t)
        phase += 1
        if keeps:
            for row in range(rows.first, rows.last):
                for i in range(hidden.shape[2]):
                    hidden[row, t, i] = memory[row * rows.size + i]


@compiled
@no_type_check
def draw_frame(program, rows, codes, t, uniforms, sampling, log_prob):
    """Draw frame t of the rows, channel after channel, into `codes`, and its log-probability into `log_prob`."""
    head, memory = program.head, rows.memory
    for c in range(len(head.linear)):
        parameters(program, rows, codes, t, c)
        size = head.linear[c].groups * SIMD_WIDTH
        for row in range(rows.first, rows.last):
            base, u = row * rows.size, uniforms[row, t, c]
            p = memory[base + head.parameters : base + head.parameters + size]
            if head.categorical:
                masses = memory[base + head.masses : base + head.masses + size]
                codes[row, t, c], log_prob[row, t, c] = categorical(p, masses, head.n_levels, u[0], sampling)
            else:
                codes[row, t, c], log_prob[row, t, c] = mixture(
                    p, head.n_mixtures, head.unit, centre(program, rows, row, c), head.n_levels, u, sampling
                )


@compiled
@no_type_check
def parameters(program, rows, codes, t, c):
    """Parameters of channel c of frame t to memory[head.parameters]; `codes` has the channels before it."""
    head, w = program.head, program.weights
    couples = c > 0 and head.coupled
    ask(program, rows, codes, t, c)
    if couples:
        dense(head.coupling[c - 1], w, rows)
        if head.categorical:
            _mix(head, w, rows, codes, t, c)
    dense(head.linear[c], w, rows)
    if couples and not head.categorical:
        _move_means(head, rows, codes, t, c)
    shift(program, rows, c)


@compiled
@no_type_check
def _mix(head, w, rows, codes, t, c):
    """z = h + W2 gelu(W1 h + sum_j E_j(code_j)), as `FrameMixer`."""
    memory, inner, z = rows.memory, head.coupling[c - 1].y, head.outer[c - 1].y
    end = head.coupling[c - 1].groups * SIMD_WIDTH
    for row in range(rows.first, rows.last):
        base = row * rows.size
        for j in range(c):
            table = head.tables[c * (c - 1) // 2 + j, codes[row, t, j]]
            for i in range(len(table)):
                memory[base + inner + i] += table[i]
        for i in range(base, base + end, SIMD_WIDTH):
            store(memory, inner + i, gelu(load(memory, inner + i)))
            store(memory, z + i, load(memory, i))
    dense(head.outer[c - 1], w, rows)


@compiled
@no_type_check
def _move_means(head, rows, codes, t, c):
    """means += sum_j coefficients_j x_j, x_j the sample of channel j in [-1, 1)."""
    memory, k = rows.memory, head.n_mixtures
    for row in range(rows.first, rows.last):
        base = row * rows.size
        p, coefficients = memory[base + head.parameters :], memory[base + head.coupling[c - 1].y :]
        for j in range(c):
            x = np.float32(codes[row, t, j]) * np.float32(2 / head.n_levels) - np.float32(1)
            for i in range(k):
                p[k + i] += coefficients[j * k + i] * x


@compiled
@no_type_check
def categorical(logits, masses, n_levels, uniform, sampling):
    """A code and its log-probability. `logits` are whole vectors, filled up with -1e30; `masses` is as much room."""
    top = largest(logits, masses)
    everything = exp_masses(logits, masses, top, 1.0)
    if sampling.temperature == 0:
        code = 0
        while logits[code] < top:
            code += 1
    else:
        drawn_from = everything
        if sampling.temperature != 1:
            drawn_from = exp_masses(logits, masses, top, 1 / sampling.temperature)
        if sampling.top_k > 0 or sampling.top_p < 1:
            drawn_from = _keep_likely(masses[:n_levels], drawn_from, sampling.top_k, sampling.top_p)
        code = min(_first_beyond(masses, uniform * drawn_from), n_levels - 1)
    return code, np.float64(logits[code]) - np.float64(top) - math.log(everything)


@compiled
@no_type_check
def largest(x, room):
    """The largest number of whole vectors; `room` takes one vector."""
    highest = load(x, 0)
    for i in range(SIMD_WIDTH, len(x), SIMD_WIDTH):
        highest = larger(load(x, i), highest)
    store(room, 0, highest)
    top = room[0]
    for i in range(1, SIMD_WIDTH):
        top = max(top, room[i])
    return top


@compiled
@no_type_check
def exp_masses(logits, masses, top, factor):
    """exp((logits - top) factor) to `masses`, exactly 0 below e^-87; their sum in float64."""
    everything = 0.0
    for i in range(0, len(logits), SIMD_WIDTH):
        x = product(load(logits, i) - splat(top), splat(factor))
        mass = if_negative(x + splat(87.0), splat(0.0), exp_of_negative(x))
        store(masses, i, mass)
        everything += total(mass)
    return everything


@compiled
@no_type_check
def _first_beyond(masses, target):
    """The first code at which the running sum of masses exceeds `target`, summed as `exp_masses` does."""
    before = 0.0
    for i in range(0, len(masses), SIMD_WIDTH):
        after = before + total(load(masses, i))
        if after > target:
            last = i
            for j in range(i, i + SIMD_WIDTH):
                before += masses[j]
                if masses[j] > 0:
                    last = j
                    if before > target:
                        break
            return last
        before = after
    # Only rounding at the very end comes here: the last code that has mass.
    last = len(masses) - 1
    while last > 0 and masses[last] == 0:
        last -= 1
    return last


@compiled
@no_type_check
def _keep_likely(p, everything, top_k, top_p):
    """Zero the masses that top_k and top_p cut off (ties stay with the lower code); the sum of the others."""
    # Codes that are cut off whatever their order need none: together they hold less than half of what top_p leaves out.
    least = 0.0 if top_k > 0 else (1 - top_p) * everything / (2 * len(p))
    some = np.flatnonzero(p >= least)
    order = some[np.argsort(-p[some], kind="mergesort")]
    k = len(p) if top_k == 0 else min(top_k, len(p))
    if k < len(p):
        everything = 0.0
        for i in range(k):
            everything += p[order[i]]
    for i in range(len(p)):
        if p[i] < least:
            p[i] = 0
    kept = 0.0
    for i in range(len(order)):
        # A code stays while the codes before it hold less than top_p of the mass that top_k left.
        if i < k and kept < top_p * everything:
            kept += p[order[i]]
        else:
            p[order[i]] = 0
    return kept


@compiled
@no_type_check
def mixture(p, k, unit, centre, n_levels, uniforms, sampling):
    """A code and its log-probability under the mixture of k logistics with parameters `p`.

    Means are in `unit` LSB, counted from the code `centre`.
    """
    top = np.float64(p[0])
    for i in range(1, k):
        top = max(top, np.float64(p[i]))
    everything = 0.0
    for i in range(k):
        everything += math.exp(np.float64(p[i]) - top)
    log_sum = top + math.log(everything)
    position, log_scale = _logistic(p, k, _component(p, k, top, uniforms[0], sampling.temperature), unit)
    if sampling.scale_temperature > 0:
        u = uniforms[1]
        if u == 0:
            position = -math.inf
        else:
            position += math.exp(log_scale) * sampling.scale_temperature * (math.log(u) - math.log1p(-u))
    code = int(min(max(math.floor(position + (centre + 0.5)), 0.0), n_levels - 1.0))
    highest = -math.inf
    cells = np.empty(k)
    for i in range(k):
        mean, log_scale = _logistic(p, k, i, unit)
        cells[i] = np.float64(p[i]) - log_sum + _log_cell(mean, log_scale, code, centre, n_levels)
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
        everything += math.exp((np.float64(p[i]) - top) / temperature)
    running, chosen = 0.0, 0
    for i in range(k):
        mass = math.exp((np.float64(p[i]) - top) / temperature)
        if mass > 0:
            chosen = i
        running += mass
        if running > uniform * everything:
            break
    return chosen


@compiled
@no_type_check
def _logistic(p, k, i, unit):
    """Mean and log-scale of logistic i, in LSB."""
    mean = soft_bound(np.float64(p[k + i]) * unit, MEAN_LSB[0], MEAN_LSB[1])
    return mean, soft_bound(np.float64(p[2 * k + i]) + math.log(unit), LOG_SCALE_LSB[0], LOG_SCALE_LSB[1])


@compiled
@no_type_check
def soft_bound(x, low, high):
    """x in [low, high], beyond it less than 1 further."""
    if x > high:
        return high + 1 - 1 / (1 + (x - high))
    if x < low:
        return low - 1 + 1 / (1 + (low - x))
    return x


@compiled
@no_type_check
def _log_cell(mean, log_scale, code, centre, n_levels):
    position, width = code - centre, math.exp(-log_scale)
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
