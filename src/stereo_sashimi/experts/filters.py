"""The filters of the experts in loops compiled by numba: inner products, NLMS stages, least squares, their solution.

`s` is the state of one row, flat, and all else names places in it; runs of numbers fill whole vectors.
"""

import math
from typing import no_type_check

from stereo_sashimi.experts.plan import FLOOR, FRAMES, RIDGE, TINY, YOUNG
from stereo_sashimi.ops.cpu.constants import SIMD_WIDTH
from stereo_sashimi.ops.cpu.vector import broadcast, compiled, load, store, zeros
from stereo_sashimi.ops.cpu.vector_math import fma, fnma, if_negative, inlined, magnitude, product, total

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
def learn(plan, s, x, rows, w, n, width, target, error, mean, forgetting, every):
    """A frame of a least squares with the inputs at x, which is solved anew with every `every`-th, at first more often.

    Until then frames wait at `rows`: inputs, then gains and targets, of `every` frames. Together they cost the
    covariance one way through memory. `mean`: the places of its running |error|, and of how many wait.
    """
    s[mean] = max(0.5 * s[mean] + 0.5 * abs(error), TINY)
    root = math.sqrt(s[mean] + FLOOR)
    k, gains = int(s[mean + 1]), rows + every * width
    for j in range(0, width, SIMD_WIDTH):
        store(s, rows + k * width + j, load(s, x + j))
    s[gains + k] = (1.0 - forgetting) / (root * math.sqrt(root))
    s[gains + every + k] = target
    waiting = k + 1
    # Fewer frames than inputs have no one solution.
    if waiting < (every if s[FRAMES] < n else min(every, 1 + int(s[FRAMES]) // YOUNG)):
        s[mean + 1] = waiting
        return
    s[mean + 1] = 0.0
    scratch, power = plan.scratch, 1.0
    for k in range(waiting - 1, -1, -1):
        gain = broadcast(s, s[gains + k] * power)
        for j in range(0, width, SIMD_WIDTH):
            store(s, scratch + k * width + j, product(gain, load(s, rows + k * width + j)))
        power *= forgetting
    fade = broadcast(s, power)
    cross, covariance = w + width, w + 2 * width
    for j in range(0, width, SIMD_WIDTH):
        summed = _faded(s, fade, load(s, cross + j))
        for k in range(waiting):
            summed = fma(broadcast(s, s[gains + every + k]), load(s, scratch + k * width + j), summed)
        store(s, cross + j, summed)
    for i in range(n):
        # The upper triangle, in whole vectors.
        for j in range(i - i % SIMD_WIDTH, width, SIMD_WIDTH):
            at = covariance + i * width + j
            summed = _faded(s, fade, load(s, at))
            for k in range(waiting):
                summed = fma(broadcast(s, s[scratch + k * width + i]), load(s, rows + k * width + j), summed)
            store(s, at, summed)
    _solve(s, w, n, width, plan.scratch, RIDGE * (1.0 - forgetting))


@inlined
@no_type_check
def _faded(s, fade, x):
    """fade x, 0 where that is next to nothing."""
    x = product(fade, x)
    return if_negative(magnitude(x) - broadcast(s, TINY), zeros(s), x)


@compiled
@no_type_check
def _solve(s, w, n, width, u, ridge):
    """Weights at w from cross-covariance and covariance behind them; u, with room for n + 3 rows, is scratch.

    Gauss without pivoting: U w = y, where the matrix is symmetric and U' diag(U)^-1 U = covariance + ridge. Where
    rounding leaves it without a positive pivot the weights stay as they are.
    """
    cross, covariance = w + width, w + 2 * width
    left, y, found = u + n * width, u + (n + 1) * width, u + (n + 2) * width
    for i in range(n):
        for j in range(i - i % SIMD_WIDTH, width, SIMD_WIDTH):
            store(s, u + i * width + j, load(s, covariance + i * width + j))
        s[u + i * width + i] += ridge
    for j in range(0, width, SIMD_WIDTH):
        store(s, left + j, load(s, cross + j))
        store(s, found + j, zeros(s))
    for k in range(n):
        row, begin = u + k * width, k - k % SIMD_WIDTH
        pivot = s[row + k]
        if not pivot > 0.0:
            return
        inverse = 1.0 / pivot
        s[y + k] = s[left + k]
        factor = broadcast(s, inverse * s[y + k])
        for j in range(begin, width, SIMD_WIDTH):
            store(s, left + j, fnma(factor, load(s, row + j), load(s, left + j)))
        s[row + k] = inverse
        for i in range(k + 1, n):
            factor = broadcast(s, inverse * s[row + i])
            for j in range(i - i % SIMD_WIDTH, width, SIMD_WIDTH):
                at = u + i * width + j
                store(s, at, fnma(factor, load(s, row + j), load(s, at)))
    for k in range(n - 1, -1, -1):
        row = u + k * width
        # Those that are not found yet are 0, whatever stands before the diagonal.
        begin = k - k % SIMD_WIDTH
        s[found + k] = (s[y + k] - dot(s, row + begin, found + begin, width - begin)) * s[row + k]
    for j in range(0, width, SIMD_WIDTH):
        store(s, w + j, load(s, found + j))


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
