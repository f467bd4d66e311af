"""How likely the cells of codes are, as integers: the same on every machine, and never 0. Compiled by numba.

A code of 8 bits is one stage of 256 cells, a code of 16 bits two: its upper byte, then, given that, its lower byte. The
rule for a stage whose cells have masses m_0 .. m_255, in float64 and in this order:

    S_j = m_0 + .. + m_(j-1)         running sums; masses below 1e-30 count as 0, and where none is left all count as 1
    C_j = floor(S_j (F / S_256))     F = 2^24 - 256; C_256 = F
    P_j = 1 + C_(j+1) - C_j          of 2^24 in all

Sums of masses that are not negative never fall, so P_j >= 1. The masses are float32, by the polynomials of
`ops/cpu/vector_math.py` and products that keep all digits in both tails (`distributions/logistic_mixture.py`): no
libm is asked, no sum depends on threads or on the rows around.
"""

import math
from typing import no_type_check

import numpy as np

from stereo_sashimi.distributions.logistic_mixture import LOG_SCALE_LSB, MEAN_LSB
from stereo_sashimi.generation.engines.compiled.draw import exp_masses, largest, soft_bound
from stereo_sashimi.ops.cpu.constants import SIMD_WIDTH
from stereo_sashimi.ops.cpu.vector import compiled, load, store
from stereo_sashimi.ops.cpu.vector_math import exp_of_negative, fma, if_negative, magnitude, product, quotient, splat

CELLS = 256
PRECISION = 24
FREE = (1 << PRECISION) - CELLS
# Room for CELLS + 1 edges in whole vectors.
EDGES = CELLS + SIMD_WIDTH
SMALLEST = 1e-30
# ln 2 in two parts; n times the first is exact for |n| < 2**20.
_LN2_HIGH = 6.93147180369123816490e-01
_LN2_LOW = 1.90821492927058770002e-10
# From log-scales in units of the waveform range to LSB: ln(n_levels / 2).
_LOG_LSB_8, _LOG_LSB_16 = 7 * (_LN2_HIGH + _LN2_LOW), 15 * (_LN2_HIGH + _LN2_LOW)


def n_stages(n_levels: int) -> int:
    """Stages of one code: 1 for 8 bits, 2 for 16."""
    return 1 if n_levels <= CELLS else 2


@compiled
@no_type_check
def stage_counts(head, memory, base, centre, stage, upper, counts):
    """P_j - 1 of the cells of one stage to `counts` (256, float32), for the parameters in the row at memory[base].

    `centre`: the code that means count from.

    `upper`: the cell that the first stage chose; unused there.
    """
    cells, levels = np.empty(CELLS, np.float64), head.n_levels
    step = levels // CELLS if stage == 0 else 1
    start = upper * step * CELLS if stage else 0
    size = head.linear[0].groups * SIMD_WIDTH
    p = memory[base + head.parameters : base + head.parameters + size]
    if head.categorical:
        masses = memory[base + head.masses : base + head.masses + size]
        if stage == 0:
            exp_masses(p, masses, largest(p, masses), 1.0)
        for j in range(CELLS):
            mass = 0.0
            for i in range(start + j * step, start + (j + 1) * step):
                mass += np.float64(masses[i])
            cells[j] = mass
    else:
        mixture_masses(p, head.n_mixtures, head.unit, centre, levels, start, step, cells)
    integers(cells, counts)


@compiled
@no_type_check
def integers(masses, counts):
    """P_j - 1 of any `masses`, which are overwritten."""
    whole = 0.0
    for j in range(CELLS):
        if not masses[j] >= SMALLEST:
            masses[j] = 0.0
        whole += masses[j]
    if whole == 0.0:
        masses[:] = 1.0
        whole = np.float64(CELLS)
    factor = FREE / whole
    running, before = 0.0, 0.0
    for j in range(CELLS):
        running += masses[j]
        after = min(math.floor(running * factor), np.float64(FREE))
        if j == CELLS - 1:
            after = np.float64(FREE)
        counts[j] = np.float32(after - before)
        before = after


@compiled
@no_type_check
def mixture_masses(p, k, unit, centre, levels, start, step, masses):
    """Masses of CELLS cells of `step` codes from `start` on, under k logistics with parameters `p`.

    Means are in `unit` LSB, 1 or levels / 2, counted from the code `centre`.

    A cell between the edges b < a has sigmoid(a) sigmoid(-b) (1 - e^(b - a)); the first and the last of all codes take
    the tails.
    """
    steps, total = np.empty(EDGES, np.float32), np.zeros(EDGES, np.float32)
    below, above = np.empty(EDGES, np.float32), np.empty(EDGES, np.float32)
    for j in range(EDGES):
        steps[j] = j
    top = p[0]
    for i in range(1, k):
        top = max(top, p[i])
    first, last = np.float32(0), np.float32(0)
    log_unit = 0.0 if unit == 1 else (_LOG_LSB_8 if levels == CELLS else _LOG_LSB_16)
    for i in range(k):
        weight = np.float32(_exp(np.float64(p[i]) - np.float64(top)))
        mean = np.float32(soft_bound(np.float64(p[k + i]) * unit, MEAN_LSB[0], MEAN_LSB[1]))
        log_scale = np.float64(p[2 * k + i]) + log_unit
        rate = np.float32(_exp(-soft_bound(log_scale, LOG_SCALE_LSB[0], LOG_SCALE_LSB[1])))
        inner = np.float32(weight * _one_minus_exp(np.float64(rate) * step))
        _sigmoids(steps, step, np.float32(start - centre - 0.5), mean, rate, below, above)
        for j in range(0, CELLS, SIMD_WIDTH):
            mass = product(load(below, j + 1), load(above, j))
            store(total, j, fma(mass, splat(inner), load(total, j)))
        first += weight * below[1]
        last += weight * above[CELLS - 1]
    if start == 0:
        total[0] = first
    if start + CELLS * step == levels:
        total[CELLS - 1] = last
    for j in range(CELLS):
        masses[j] = total[j]


@compiled
@no_type_check
def _sigmoids(steps, step, start, mean, rate, below, above):
    """sigmoid(x) to `below` and sigmoid(-x) to `above`, x = (edge - mean) rate, of the edges start + j step."""
    for j in range(0, EDGES, SIMD_WIDTH):
        edge = fma(load(steps, j), splat(np.float32(step)), splat(start))
        x = product(edge - splat(mean), splat(rate))
        e = exp_of_negative(splat(np.float32(0)) - magnitude(x))
        near = quotient(splat(np.float32(1)), splat(np.float32(1)) + e)
        far = product(e, near)
        store(below, j, if_negative(x, far, near))
        store(above, j, if_negative(x, near, far))


@compiled
@no_type_check
def _exp(x):
    """exp(x) in float64 for |x| < 700, by Taylor's series of what is left of the nearest multiple of ln 2."""
    x = min(max(x, -700.0), 700.0)
    n = math.floor(x / (_LN2_HIGH + _LN2_LOW) + 0.5)
    r = (x - n * _LN2_HIGH) - n * _LN2_LOW
    y = 1.0
    for i in range(13, 0, -1):
        y = y * r / i + 1.0
    return math.ldexp(y, int(n))


@compiled
@no_type_check
def _one_minus_exp(x):
    """1 - exp(-x) for x >= 0, with all digits for small x."""
    if x > 0.5:
        return 1.0 - _exp(-x)
    y = 0.0
    for i in range(13, 0, -1):
        y = (1.0 - y) * x / i
    return y
