"""The filters of the experts in loops compiled by numba: inner products, NLMS stages, least squares, their solution.

`s` is the state of one row, flat, and all else names places in it; runs of numbers fill whole vectors.
"""

import math
from typing import no_type_check

from stereo_sashimi.experts.plan import FLOOR, RIDGE
from stereo_sashimi.ops.cpu.constants import SIMD_WIDTH
from stereo_sashimi.ops.cpu.vector import broadcast, compiled, load, store, zeros
from stereo_sashimi.ops.cpu.vector_math import fma, fnma, product, total

_LN2 = math.log(2.0)


@compiled
@no_type_check
def window(plan, c, d, p):
    """From a history of channel c to the window of channel d in its own: a frame later if that one is known."""
    return (d - c) * plan.channel + p + (1 if plan.coupled and d < c else 0)


@compiled
@no_type_check
def dot(s, a, b, n):
    """The inner product of two runs of n numbers, n a multiple of SIMD_WIDTH."""
    found = zeros(s)
    for i in range(0, n, SIMD_WIDTH):
        found = fma(load(s, a + i), load(s, b + i), found)
    return total(found)


@compiled
@no_type_check
def filtered(plan, s, stage, c, at, p):
    """The prediction of a stage, which is kept with the power of its inputs."""
    found, power = zeros(s), zeros(s)
    w = at + stage.w
    for d in range(plan.n_channels):
        if d == c or stage.others > 0:
            x = at + stage.x + window(plan, c, d, p)
            for i in range(0, stage.order, SIMD_WIDTH):
                v = load(s, x + i)
                found = fma(v, load(s, w + i), found)
                power = fma(v, v, power)
            w += stage.order
    s[at + stage.found] = total(found)
    s[at + stage.found + 1] = total(power)
    return s[at + stage.found]


@compiled
@no_type_check
def adapt(plan, s, stage, c, at, p, target):
    """A step towards what the stage should have predicted, which joins its inputs; returns what is left of it."""
    left = target - s[at + stage.found]
    gain = broadcast(s, stage.step * left / (s[at + stage.found + 1] + 1.0))
    w = at + stage.w
    for d in range(plan.n_channels):
        if d == c or stage.others > 0:
            x = at + stage.x + window(plan, c, d, p)
            for i in range(0, stage.order, SIMD_WIDTH):
                store(s, w + i, fma(gain, load(s, x + i), load(s, w + i)))
            w += stage.order
    s[at + stage.x + p + stage.order] = target
    return left


@compiled
@no_type_check
def learn(plan, s, x, w, n, width, target, error, mean, forgetting, due):
    """A frame of a least squares; `due`: its weights at w are solved anew. `mean`: the place of its running |error|."""
    s[mean] = 0.5 * s[mean] + 0.5 * abs(error)
    root = math.sqrt(s[mean] + FLOOR)
    weight = (1.0 - forgetting) / (root * math.sqrt(root))
    fade = broadcast(s, forgetting)
    cross, covariance = w + width, w + 2 * width
    gain = broadcast(s, weight * target)
    for j in range(0, width, SIMD_WIDTH):
        store(s, cross + j, fma(gain, load(s, x + j), product(fade, load(s, cross + j))))
    for i in range(n):
        gain = broadcast(s, weight * s[x + i])
        # The upper triangle, in whole vectors.
        for j in range(i - i % SIMD_WIDTH, width, SIMD_WIDTH):
            at = covariance + i * width + j
            store(s, at, fma(gain, load(s, x + j), product(fade, load(s, at))))
    if due:
        _solve(s, w, n, width, plan.size - n * width, RIDGE * (1.0 - forgetting))


@compiled
@no_type_check
def _solve(s, w, n, width, u, ridge):
    """Weights at w from cross-covariance and covariance behind them, by Cholesky's U' U = covariance + ridge at u.

    Where rounding leaves the covariance without a positive pivot the weights stay as they are.
    """
    cross, covariance = w + width, w + 2 * width
    for i in range(n):
        for j in range(i - i % SIMD_WIDTH, width, SIMD_WIDTH):
            store(s, u + i * width + j, load(s, covariance + i * width + j))
        s[u + i * width + i] += ridge
    for k in range(n):
        row = u + k * width
        pivot = s[row + k]
        if not pivot > 0.0:
            return
        scale = broadcast(s, 1.0 / math.sqrt(pivot))
        begin = k - k % SIMD_WIDTH
        for j in range(begin, width, SIMD_WIDTH):
            store(s, row + j, product(scale, load(s, row + j)))
        for i in range(k + 1, n):
            factor = broadcast(s, s[row + i])
            for j in range(i - i % SIMD_WIDTH, width, SIMD_WIDTH):
                at = u + i * width + j
                store(s, at, fnma(factor, load(s, row + j), load(s, at)))
    # U' y = cross, then U w = y; y grows in w.
    for j in range(0, width, SIMD_WIDTH):
        store(s, w + j, load(s, cross + j))
    for k in range(n):
        row = u + k * width
        s[w + k] /= s[row + k]
        for i in range(k + 1, n):
            s[w + i] -= s[w + k] * s[row + i]
    for k in range(n - 1, -1, -1):
        row = u + k * width
        left = s[w + k]
        for i in range(k + 1, n):
            left -= s[row + i] * s[w + i]
        s[w + k] = left / s[row + k]
    for i in range(n, width):
        s[w + i] = 0.0


@compiled
@no_type_check
def log(x):
    """The natural logarithm of a positive number, to a relative 1e-12: the same on every machine."""
    mantissa, exponent = math.frexp(x)
    if mantissa < 0.7071067811865476:
        mantissa, exponent = 2.0 * mantissa, exponent - 1
    r = (mantissa - 1.0) / (mantissa + 1.0)
    q = r * r
    series = 1.0 / 13.0
    for odd in (11.0, 9.0, 7.0, 5.0, 3.0, 1.0):
        series = series * q + 1.0 / odd
    return exponent * _LN2 + 2.0 * r * series


@compiled
@no_type_check
def squashed(x):
    """x, bent to stay within -4 and 4."""
    return 4.0 * x / (4.0 + abs(x))
