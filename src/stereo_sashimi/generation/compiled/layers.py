"""What the layers of a SaShiMi do to one frame, compiled by numba; `loops.py` calls them in order.

Every function works on `memory`, flat, of rows of `size` numbers, one row for each recurrence: its states and all that
is computed on the way. A row's vectors are named by where they begin in it, and all have whole vectors of LANES
numbers: channels beyond a layer's width hold zeros. `w` has all weights, flat, as `pack.py` laid them out. Rows are the
inner loop, so that weights that were read once serve all of them from the nearest cache.

Each number is a sum in a fixed order over explicit fused multiply-adds (`ops/simd_math.py`): it depends neither on the
rows around it nor on the machine.
"""

from typing import no_type_check

import numpy as np

from stereo_sashimi.ops.recurrent import LANES
from stereo_sashimi.ops.simd import compiled, load, store, zeros
from stereo_sashimi.ops.simd_math import fma, fnma, gelu, inlined, product, sigmoid, splat, total

# What `dense` does with a sum: WRITE it, its GELU, ADD it to what is there.
WRITE, GELU, ADD = 0, 1, 2
_PAIR, _FOUR = 2 * LANES, 4 * LANES


@compiled
@no_type_check
def normalise(w, at, width, epsilon, memory, size, first, last, x, y):
    """y = (x - mean) r scale + r shift + bias, r = 1 / sqrt(variance + epsilon): layer norm and the scalar norm.

    w[at] has scale, shift, bias and a mask (1 for channels, 0 for what fills the last vector up).
    """
    padded = -(-width // LANES) * LANES
    for row in range(first, last):
        base = row * size
        s = zeros(w)
        for i in range(0, padded, LANES):
            s = s + load(memory, base + x + i)
        mean = splat(total(s) / np.float32(width))
        s = zeros(w)
        for i in range(0, padded, LANES):
            d = product(load(memory, base + x + i) - mean, load(w, at + 3 * padded + i))
            s = fma(d, d, s)
        r = splat(np.float32(1.0) / np.sqrt(total(s) / np.float32(width) + np.float32(epsilon)))
        for i in range(0, padded, LANES):
            d = product(load(memory, base + x + i) - mean, load(w, at + i))
            v = fma(d + load(w, at + padded + i), r, load(w, at + 2 * padded + i))
            store(memory, base + y + i, v)


@compiled
@no_type_check
def advance(w, at, groups, modes, parts, memory, size, first, last, u, y, state):
    """One step of a state space model, its skip and GELU: y = gelu(2 Re(C x') + D u), see `ops/ssm.py:step`.

    w[at] has D, then for each group of LANES channels `parts` vectors a mode: the real and imaginary parts of delta, B,
    2 C and, for DPLR, left and 2 right. memory[state] has for each group s = 2 Re(right x), and the modes of x.
    """
    stride, one = parts * LANES, LANES * (1 + 2 * modes)
    for g in range(groups):
        p = at + groups * LANES + g * modes * stride
        for row in range(first, last):
            base = row * size
            x = base + state + g * one
            v, s = load(memory, base + u + g * LANES), load(memory, x)
            y_re, y_im, s_re, s_im = zeros(w), zeros(w), zeros(w), zeros(w)
            for m in range(modes):
                q, i = p + m * stride, x + LANES + m * _PAIR
                re, im = load(memory, i), load(memory, i + LANES)
                d_re, d_im = load(w, q), load(w, q + LANES)
                # The small changes first: next to the unit circle delta x is small against x.
                change_re = product(load(w, q + 2 * LANES), v)
                change_im = product(load(w, q + 3 * LANES), v)
                if parts > 6:
                    change_re = fma(load(w, q + 6 * LANES), s, change_re)
                    change_im = fma(load(w, q + 7 * LANES), s, change_im)
                re, im = (
                    re + fnma(d_im, im, fma(d_re, re, change_re)),
                    im + fma(d_im, re, fma(d_re, im, change_im)),
                )
                store(memory, i, re)
                store(memory, i + LANES, im)
                y_re = fma(load(w, q + 4 * LANES), re, y_re)
                y_im = fma(load(w, q + 5 * LANES), im, y_im)
                if parts > 6:
                    s_re = fma(load(w, q + 8 * LANES), re, s_re)
                    s_im = fma(load(w, q + 9 * LANES), im, s_im)
            store(memory, x, s_re - s_im)
            store(memory, base + y + g * LANES, gelu(fma(load(w, at + g * LANES), v, y_re - y_im)))


@compiled
@no_type_check
def ready(w, at, groups, modes, parts, memory, size, first, last, state):
    """Make s of `advance` from the modes of x, to the last bit as `advance` leaves it."""
    stride, one = parts * LANES, LANES * (1 + 2 * modes)
    for g in range(groups):
        p = at + groups * LANES + g * modes * stride
        for row in range(first, last):
            x = row * size + state + g * one
            s_re, s_im = zeros(w), zeros(w)
            if parts > 6:
                for m in range(modes):
                    q, i = p + m * stride, x + LANES + m * _PAIR
                    s_re = fma(load(w, q + 8 * LANES), load(memory, i), s_re)
                    s_im = fma(load(w, q + 9 * LANES), load(memory, i + LANES), s_im)
            store(memory, x, s_re - s_im)


@inlined
@no_type_check
def _four(w, at, n_in, memory, x):
    """Four vectors of outputs: w[at] has their biases, then for each input four vectors of weights."""
    a, b, c, d = load(w, at), load(w, at + LANES), load(w, at + 2 * LANES), load(w, at + 3 * LANES)
    for k in range(n_in):
        v, q = splat(memory[x + k]), at + (k + 1) * _FOUR
        a = fma(load(w, q), v, a)
        b = fma(load(w, q + LANES), v, b)
        c = fma(load(w, q + 2 * LANES), v, c)
        d = fma(load(w, q + 3 * LANES), v, d)
    return a, b, c, d


@inlined
@no_type_check
def _two(w, at, n_in, memory, x):
    """Two vectors of outputs, as `_four`."""
    a, b = load(w, at), load(w, at + LANES)
    for k in range(n_in):
        v, q = splat(memory[x + k]), at + (k + 1) * _PAIR
        a = fma(load(w, q), v, a)
        b = fma(load(w, q + LANES), v, b)
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
            o = row * size + y + g * LANES
            a, b, c, d = _four(w, at, n_in, memory, row * size + x)
            _finish(memory, o, a, how)
            _finish(memory, o + LANES, b, how)
            _finish(memory, o + 2 * LANES, c, how)
            _finish(memory, o + 3 * LANES, d, how)
        at += (n_in + 1) * _FOUR
    if groups % 4:
        for row in range(first, last):
            o = row * size + y + (groups - 2) * LANES
            a, b = _two(w, at, n_in, memory, row * size + x)
            _finish(memory, o, a, how)
            _finish(memory, o + LANES, b, how)


@compiled
@no_type_check
def gated(w, at, n_in, groups, memory, size, first, last, x, y):
    """y += a sigmoid(b), where (a, b) is a linear map of x to `groups` vectors each: GLU with the residual sum.

    Tiles have two vectors of a and the same of b, the last one of each where one is left.
    """
    for g in range(0, groups - 1, 2):
        for row in range(first, last):
            o = row * size + y + g * LANES
            a, b, c, d = _four(w, at, n_in, memory, row * size + x)
            store(memory, o, fma(a, sigmoid(c), load(memory, o)))
            store(memory, o + LANES, fma(b, sigmoid(d), load(memory, o + LANES)))
        at += (n_in + 1) * _FOUR
    if groups % 2:
        for row in range(first, last):
            o = row * size + y + (groups - 1) * LANES
            a, b = _two(w, at, n_in, memory, row * size + x)
            store(memory, o, fma(a, sigmoid(b), load(memory, o)))
