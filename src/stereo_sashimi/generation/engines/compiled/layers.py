"""What the layers of a SaShiMi do to one frame, compiled by numba; `loops.py` calls them in order.

Every function works on `memory`, flat, of rows of `size` numbers, one row for each recurrence: its states and all that
is computed on the way. A row's vectors are named by where they begin in it, and all have whole vectors of SIMD_WIDTH
numbers: channels beyond a layer's width hold zeros. `w` has all weights, flat, as `pack.py` laid them out. Rows are the
inner loop, so that weights that were read once serve all of them from the nearest cache.

Each number is a sum in a fixed order over explicit fused multiply-adds (`ops/cpu/vector_math.py`): it depends
neither on the rows around it nor on the machine.
"""

from typing import no_type_check

import numpy as np

from stereo_sashimi.ops.cpu.constants import SIMD_WIDTH
from stereo_sashimi.ops.cpu.vector import compiled, load, store, zeros
from stereo_sashimi.ops.cpu.vector_math import fma, fnma, gelu, inlined, product, sigmoid, splat, total

# What `dense` does with a sum: WRITE it, its GELU, ADD it to what is there.
WRITE, GELU, ADD = 0, 1, 2
_PAIR, _FOUR = 2 * SIMD_WIDTH, 4 * SIMD_WIDTH


@compiled
@no_type_check
def normalise(w, at, width, epsilon, memory, size, first, last, x, y):
    """y = (x - mean) r scale + r shift + bias, r = 1 / sqrt(variance + epsilon): layer norm and the scalar norm.

    w[at] has scale, shift, bias and a mask (1 for channels, 0 for what fills the last vector up).
    """
    padded = -(-width // SIMD_WIDTH) * SIMD_WIDTH
    for row in range(first, last):
        base = row * size
        s = zeros(w)
        for i in range(0, padded, SIMD_WIDTH):
            s = s + load(memory, base + x + i)
        mean = splat(total(s) / np.float32(width))
        s = zeros(w)
        for i in range(0, padded, SIMD_WIDTH):
            d = product(load(memory, base + x + i) - mean, load(w, at + 3 * padded + i))
            s = fma(d, d, s)
        r = splat(np.float32(1.0) / np.sqrt(total(s) / np.float32(width) + np.float32(epsilon)))
        for i in range(0, padded, SIMD_WIDTH):
            d = product(load(memory, base + x + i) - mean, load(w, at + i))
            v = fma(d + load(w, at + padded + i), r, load(w, at + 2 * padded + i))
            store(memory, base + y + i, v)


@compiled
@no_type_check
def advance(w, at, groups, modes, parts, memory, size, first, last, u, y, state):
    """One step of a state space model, its skip and GELU: y = gelu(2 Re(C x') + D u), see `ops/s4_response.py:step`.

    w[at] has D, then for each group of SIMD_WIDTH channels `parts` vectors a mode: the real and imaginary parts of
    delta, B, 2 C and, for DPLR, left and 2 right. memory[state] has for each group s = 2 Re(right x), and the modes
    of x.
    """
    stride, one = parts * SIMD_WIDTH, SIMD_WIDTH * (1 + 2 * modes)
    for g in range(groups):
        p = at + groups * SIMD_WIDTH + g * modes * stride
        for row in range(first, last):
            base = row * size
            x = base + state + g * one
            v, s = load(memory, base + u + g * SIMD_WIDTH), load(memory, x)
            y_re, y_im, s_re, s_im = zeros(w), zeros(w), zeros(w), zeros(w)
            for m in range(modes):
                q, i = p + m * stride, x + SIMD_WIDTH + m * _PAIR
                re, im = load(memory, i), load(memory, i + SIMD_WIDTH)
                d_re, d_im = load(w, q), load(w, q + SIMD_WIDTH)
                # The small changes first: next to the unit circle delta x is small against x.
                change_re = product(load(w, q + 2 * SIMD_WIDTH), v)
                change_im = product(load(w, q + 3 * SIMD_WIDTH), v)
                if parts > 6:
                    change_re = fma(load(w, q + 6 * SIMD_WIDTH), s, change_re)
                    change_im = fma(load(w, q + 7 * SIMD_WIDTH), s, change_im)
                re, im = (
                    re + fnma(d_im, im, fma(d_re, re, change_re)),
                    im + fma(d_im, re, fma(d_re, im, change_im)),
                )
                store(memory, i, re)
                store(memory, i + SIMD_WIDTH, im)
                y_re = fma(load(w, q + 4 * SIMD_WIDTH), re, y_re)
                y_im = fma(load(w, q + 5 * SIMD_WIDTH), im, y_im)
                if parts > 6:
                    s_re = fma(load(w, q + 8 * SIMD_WIDTH), re, s_re)
                    s_im = fma(load(w, q + 9 * SIMD_WIDTH), im, s_im)
            store(memory, x, s_re - s_im)
            store(memory, base + y + g * SIMD_WIDTH, gelu(fma(load(w, at + g * SIMD_WIDTH), v, y_re - y_im)))


@compiled
@no_type_check
def ready(w, at, groups, modes, parts, memory, size, first, last, state):
    """Make s of `advance` from the modes of x, to the last bit as `advance` leaves it."""
    stride, one = parts * SIMD_WIDTH, SIMD_WIDTH * (1 + 2 * modes)
    for g in range(groups):
        p = at + groups * SIMD_WIDTH + g * modes * stride
        for row in range(first, last):
            x = row * size + state + g * one
            s_re, s_im = zeros(w), zeros(w)
            if parts > 6:
                for m in range(modes):
                    q, i = p + m * stride, x + SIMD_WIDTH + m * _PAIR
                    s_re = fma(load(w, q + 8 * SIMD_WIDTH), load(memory, i), s_re)
                    s_im = fma(load(w, q + 9 * SIMD_WIDTH), load(memory, i + SIMD_WIDTH), s_im)
            store(memory, x, s_re - s_im)


@inlined
@no_type_check
def _four(w, at, n_in, memory, x):
    """Four vectors of outputs: w[at] has their biases, then for each input four vectors of weights."""
    a, b, c, d = load(w, at), load(w, at + SIMD_WIDTH), load(w, at + 2 * SIMD_WIDTH), load(w, at + 3 * SIMD_WIDTH)
    for k in range(n_in):
        v, q = splat(memory[x + k]), at + (k + 1) * _FOUR
        a = fma(load(w, q), v, a)
        b = fma(load(w, q + SIMD_WIDTH), v, b)
        c = fma(load(w, q + 2 * SIMD_WIDTH), v, c)
        d = fma(load(w, q + 3 * SIMD_WIDTH), v, d)
    return a, b, c, d


@inlined
@no_type_check
def _two(w, at, n_in, memory, x):
    """Two vectors of outputs, as `_four`."""
    a, b = load(w, at), load(w, at + SIMD_WIDTH)
    for k in range(n_in):
        v, q = splat(memory[x + k]), at + (k + 1) * _PAIR
        a = fma(load(w, q), v, a)
        b = fma(load(w, q + SIMD_WIDTH), v, b)
    return a, b


@inlined
@no_type_check
def _finish(memory, y, v, how):
    if how == GELU:
        v = gelu(v)
    elif how == ADD:
        v = load(memory, y) + v
    store(memory, y, v)


@compiled
@no_type_check
def dense(w, at, n_in, groups, memory, size, first, last, x, y, how):
    """A linear map to `groups` vectors, an even number; `how` is WRITE, GELU or ADD.

    w[at] has tiles of four vectors of outputs, and one of two where two are left (`_four`, `_two`).
    """
    for g in range(0, groups - 2, 4):
        for row in range(first, last):
            o = row * size + y + g * SIMD_WIDTH
            a, b, c, d = _four(w, at, n_in, memory, row * size + x)
            _finish(memory, o, a, how)
            _finish(memory, o + SIMD_WIDTH, b, how)
            _finish(memory, o + 2 * SIMD_WIDTH, c, how)
            _finish(memory, o + 3 * SIMD_WIDTH, d, how)
        at += (n_in + 1) * _FOUR
    if groups % 4:
        for row in range(first, last):
            o = row * size + y + (groups - 2) * SIMD_WIDTH
            a, b = _two(w, at, n_in, memory, row * size + x)
            _finish(memory, o, a, how)
            _finish(memory, o + SIMD_WIDTH, b, how)


@compiled
@no_type_check
def gated(w, at, n_in, groups, memory, size, first, last, x, y):
    """y += a sigmoid(b), where (a, b) is a linear map of x to `groups` vectors each: GLU with the residual sum.

    Tiles have two vectors of a and the same of b, the last one of each where one is left.
    """
    for g in range(0, groups - 1, 2):
        for row in range(first, last):
            o = row * size + y + g * SIMD_WIDTH
            a, b, c, d = _four(w, at, n_in, memory, row * size + x)
            store(memory, o, fma(a, sigmoid(c), load(memory, o)))
            store(memory, o + SIMD_WIDTH, fma(b, sigmoid(d), load(memory, o + SIMD_WIDTH)))
        at += (n_in + 1) * _FOUR
    if groups % 2:
        for row in range(first, last):
            o = row * size + y + (groups - 1) * SIMD_WIDTH
            a, b = _two(w, at, n_in, memory, row * size + x)
            store(memory, o, fma(a, sigmoid(b), load(memory, o)))
