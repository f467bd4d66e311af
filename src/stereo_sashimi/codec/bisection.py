"""A code as decisions between halves of its range, with integer probabilities. Compiled by numba.

A code of `bits` bits is so many decisions, from its first bit to its last: whether it lies in the upper half of the
codes that are left. With the masses of both halves under the distribution of the code, in float64,

    p = 1 + floor((2^24 - 2) lower / (lower + upper))

of 2^24 is the probability of the lower half; 2^23 where the masses together are below 1e-30, or not numbers. The masses
are float32, by the polynomials of `ops/cpu/vector_math.py` and products that keep all digits in both tails: no libm is
asked, no sum depends on threads or on the rows around.
"""

import math
from typing import no_type_check

import numpy as np

from stereo_sashimi.codec.range_coder import PRECISION, decode, encode
from stereo_sashimi.distributions.logistic_mixture import LOG_SCALE_LSB, MEAN_LSB
from stereo_sashimi.generation.engines.compiled.draw import exp_masses, largest
from stereo_sashimi.ops.cpu.constants import SIMD_WIDTH
from stereo_sashimi.ops.cpu.vector import compiled, load, store
from stereo_sashimi.ops.cpu.vector_math import (
    complement_of_exp,
    exp,
    exp_of_negative,
    fma,
    if_negative,
    inlined,
    magnitude,
    product,
    quotient,
    splat,
    total,
)

MAX_BITS = 24
SMALLEST = 1e-30
_LN2 = math.log(2)
_HALF, _FREE = 1 << (PRECISION - 1), float((1 << PRECISION) - 2)
# Parts of the memory of a mixture: weights, means and rates of the logistics, their masses beyond both ends of the
# codes that are left, and, for each bit, 1 - exp(-rate 2^bit).
_WEIGHT, _MEAN, _RATE, _BELOW_END, _ABOVE_START, _WITHIN = range(6)


@compiled
@no_type_check
def room(head):
    """Memory for `code_by_halves`: that of a mixture, and running sums of categorical masses."""
    vectors = (_WITHIN + MAX_BITS + 2) * ((head.n_mixtures + SIMD_WIDTH - 1) // SIMD_WIDTH)
    return np.zeros(vectors * SIMD_WIDTH, np.float32), np.zeros((head.n_levels if head.categorical else 0) + 1)


@compiled
@no_type_check
def code_by_halves(head, memory, base, centre, mixture, sums, coder, data, at, end, code, encodes):
    """Encode `code`, or decode one, by the parameters in the row at memory[base]: (the code, where in `data` it ends).

    `centre`: the code that means count from. `mixture`, `sums`: `room`. `encodes`: else `code` is not read.
    """
    size = head.linear[0].groups * SIMD_WIDTH
    p = memory[base + head.parameters : base + head.parameters + size]
    width, bits = (head.n_mixtures + SIMD_WIDTH - 1) // SIMD_WIDTH * SIMD_WIDTH, 0
    while 1 << bits < head.n_levels:
        bits += 1
    if head.categorical:
        masses = memory[base + head.masses : base + head.masses + size]
        exp_masses(p, masses, largest(p, masses), 1.0)
        for j in range(head.n_levels):
            sums[j + 1] = sums[j] + np.float64(masses[j])
    else:
        _open_mixture(p, head.n_mixtures, head.unit, bits, mixture, width)
    start = 0
    for bit in range(bits - 1, -1, -1):
        middle, end_code = start + (1 << bit), start + (2 << bit)
        if head.categorical:
            lower, upper = sums[middle] - sums[start], sums[end_code] - sums[middle]
        else:
            edge = np.float32(middle - centre - 0.5)
            lower, upper = _halves(mixture, width, edge, bit, start == 0, end_code == head.n_levels)
        q = _HALF
        if lower + upper >= SMALLEST:
            q = 1 + math.floor(_FREE * (lower / (lower + upper)))
        if encodes:
            goes_up = code >= middle
            at = encode(coder, data, at, goes_up, q)
        else:
            goes_up, at = decode(coder, data, at, end, q)
        if goes_up:
            start = middle
        if not head.categorical:
            _keep(mixture, width, goes_up)
    return start, at


@inlined
@no_type_check
def _bounded(x, low, high):
    """`logistic_mixture.soft_bound` of a vector."""
    one, zero = splat(1.0), splat(0.0)
    above, below = x - splat(high), splat(low) - x
    x = if_negative(zero - above, splat(high) + (one - quotient(one, one + above)), x)
    return if_negative(zero - below, splat(low) - (one - quotient(one, one + below)), x)


@compiled
@no_type_check
def _open_mixture(p, k, unit, bits, mixture, width):
    """Logistics of the parameters `p` to `mixture`. Those that fill up the last vector have no weight."""
    top = p[0]
    for i in range(1, k):
        top = max(top, p[i])
    for i in range(width):
        # Places of `_BELOW_END` .. are free still.
        mixture[i] = p[i] if i < k else top - np.float32(1e4)
        mixture[_MEAN * width + i] = p[k + i] if i < k else np.float32(0)
        mixture[_RATE * width + i] = p[2 * k + i] if i < k else np.float32(0)
    for i in range(0, width, SIMD_WIDTH):
        x = load(mixture, i) - splat(top)
        store(mixture, i, if_negative(x + splat(87.0), splat(0.0), exp_of_negative(x)))
        mean = product(load(mixture, _MEAN * width + i), splat(unit))
        store(mixture, _MEAN * width + i, _bounded(mean, MEAN_LSB[0], MEAN_LSB[1]))
        log_scale = load(mixture, _RATE * width + i) + splat(0.0 if unit == 1 else (bits - 1) * _LN2)
        rate = exp(splat(0.0) - _bounded(log_scale, LOG_SCALE_LSB[0], LOG_SCALE_LSB[1]))
        store(mixture, _RATE * width + i, rate)
        store(mixture, _BELOW_END * width + i, splat(1.0))
        store(mixture, _ABOVE_START * width + i, splat(1.0))
        # 1 - e^-2x = (1 - e^-x) (1 + e^-x) keeps all digits from bit to bit.
        within, e = complement_of_exp(rate), exp_of_negative(splat(0.0) - rate)
        for bit in range(bits):
            store(mixture, (_WITHIN + bit) * width + i, within)
            within, e = product(within, splat(1.0) + e), product(e, e)


@compiled
@no_type_check
def _halves(mixture, width, edge, bit, first, last):
    """Masses of the codes that are left below and above `edge`, each 2^bit codes; `first`, `last`: to the very end.

    Between edges a < b a logistic has sigmoid(b) sigmoid(-a) (1 - exp(a - b)).
    """
    lower, upper, one = splat(0.0), splat(0.0), splat(1.0)
    end = (_WITHIN + MAX_BITS) * width
    for i in range(0, width, SIMD_WIDTH):
        x = product(splat(edge) - load(mixture, _MEAN * width + i), load(mixture, _RATE * width + i))
        e = exp_of_negative(splat(0.0) - magnitude(x))
        near = quotient(one, one + e)
        far = product(e, near)
        below, above = if_negative(x, far, near), if_negative(x, near, far)
        store(mixture, end + i, below)
        store(mixture, end + width + i, above)
        weight, within = load(mixture, i), load(mixture, (_WITHIN + bit) * width + i)
        inner = product(weight, within)
        own = product(below, load(mixture, _ABOVE_START * width + i))
        lower = fma(own, weight if first else inner, lower)
        own = product(above, load(mixture, _BELOW_END * width + i))
        upper = fma(own, weight if last else inner, upper)
    return np.float64(total(lower)), np.float64(total(upper))


@compiled
@no_type_check
def _keep(mixture, width, goes_up):
    """The half that was chosen is what is left."""
    end = (_WITHIN + MAX_BITS) * width
    for i in range(0, width, SIMD_WIDTH):
        if goes_up:
            store(mixture, _ABOVE_START * width + i, load(mixture, end + width + i))
        else:
            store(mixture, _BELOW_END * width + i, load(mixture, end + i))
