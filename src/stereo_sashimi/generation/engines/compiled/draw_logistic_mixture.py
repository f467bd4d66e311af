"""Codes of a discretised mixture of logistics, as `distributions/logistic_mixture.py` draws them, in float64."""

import math
from typing import no_type_check

import numpy as np

from stereo_sashimi.distributions.logistic_mixture import LOG_SCALE_LSB, MEAN_LSB
from stereo_sashimi.generation.engines.compiled.sampling_numbers import SCALE_TEMPERATURE, TEMPERATURE
from stereo_sashimi.ops.cpu.vector import compiled


@compiled
@no_type_check
def mixture(p, k, n_levels, uniforms, sampling):
    """A code and its log-probability under the mixture of k logistics with parameters `p`
    (`distributions/logistic_mixture.py`)."""
    top = np.float64(p[0])
    for i in range(1, k):
        top = max(top, np.float64(p[i]))
    everything = 0.0
    for i in range(k):
        everything += math.exp(np.float64(p[i]) - top)
    log_sum = top + math.log(everything)
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
        cells[i] = np.float64(p[i]) - log_sum + _log_cell(mean, log_scale, code, n_levels)
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
def _logistic(p, k, i, n_levels):
    """Mean and log-scale of logistic i, in LSB."""
    mean = _soft_bound(np.float64(p[k + i]) * (n_levels / 2), MEAN_LSB[0], MEAN_LSB[1])
    return mean, _soft_bound(np.float64(p[2 * k + i]) + math.log(n_levels / 2), LOG_SCALE_LSB[0], LOG_SCALE_LSB[1])


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
