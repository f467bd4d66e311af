"""The loops of `scan.py`, compiled by numba: a state space model stepped through time, and its adjoint.

Real arithmetic on vectors of SIMD_WIDTH channels (`vector.py`); modes are the inner loop, time the outer one. A call
does one batch row of one group of SIMD_WIDTH channels.
With x the state before a step, x' after it, and delta = A_bar's diagonal - 1 (see `discretize.py`):

  s = 2 sum_m Re(right x)      x' = x + delta x + left s + b u      y = 2 sum_m Re(c x')

The adjoint of a step, with g the gradient of x' and G those of y, s and u:

  g += 2 G_y conj(c)      G_s = sum_m Re(conj(left) g)      G_u = sum_m Re(conj(b) g)
  g <- g + conj(delta) g + 2 G_s conj(right)

All arrays are flat. A group's parameters are (modes, parts, SIMD_WIDTH): the real and imaginary parts of delta, b, c
and, but for diagonal layers, left and right, in that order. A state is (modes, 2, SIMD_WIDTH).
"""

from typing import no_type_check

import numpy as np

from stereo_sashimi.ops.cpu.constants import SEGMENT, SIMD_WIDTH
from stereo_sashimi.ops.cpu.vector import compiled, load, store, zeros

_D, _B, _C, _L, _R = (2 * SIMD_WIDTH * part for part in range(5))
_X, _Z = 2 * SIMD_WIDTH, 4 * SIMD_WIDTH


@compiled
@no_type_check
def _step(p, stride, x, at, to, scalars, z, y, o):
    """x[to] from x[at], y to y[o]. scalars[z] holds s and u of this step; that of the next step gets its s."""
    s, u = load(scalars, z), load(scalars, z + SIMD_WIDTH)
    half_y, half_s = zeros(p), zeros(p)
    for m in range(len(p) // stride):
        q, i = m * stride, m * _X
        re, im = load(x, at + i), load(x, at + i + SIMD_WIDTH)
        d_re, d_im = load(p, q + _D), load(p, q + _D + SIMD_WIDTH)
        new_re = d_re * re - d_im * im + load(p, q + _B) * u
        new_im = d_re * im + d_im * re + load(p, q + _B + SIMD_WIDTH) * u
        if stride > _L:
            new_re = new_re + load(p, q + _L) * s
            new_im = new_im + load(p, q + _L + SIMD_WIDTH) * s
        # Last, as delta x is small against x.
        new_re, new_im = re + new_re, im + new_im
        store(x, to + i, new_re)
        store(x, to + i + SIMD_WIDTH, new_im)
        half_y = half_y + (load(p, q + _C) * new_re - load(p, q + _C + SIMD_WIDTH) * new_im)
        if stride > _L:
            half_s = half_s + (load(p, q + _R) * new_re - load(p, q + _R + SIMD_WIDTH) * new_im)
    store(y, o, half_y + half_y)
    store(scalars, z + _Z, half_s + half_s)


@compiled
@no_type_check
def _first_s(p, stride, x, at, scalars):
    half_s = zeros(p)
    if stride > _L:
        for m in range(len(p) // stride):
            q, i = m * stride + _R, at + m * _X
            half_s = half_s + (load(p, q) * load(x, i) - load(p, q + SIMD_WIDTH) * load(x, i + SIMD_WIDTH))
    store(scalars, 0, half_s + half_s)


@compiled
@no_type_check
def forward(p, u, x, y, width, snapshots):
    """Step through u, whose frames are `width` numbers apart and whose channels stand at the front; y likewise.

    x is the state, advanced in place. snapshots (segments, state) takes the state before every SEGMENT-th step; with
    no rows nothing is kept.
    """
    scalars = np.zeros(2 * _Z, p.dtype)
    stride = len(p) * _X // len(x)
    _first_s(p, stride, x, 0, scalars)
    for t in range((len(u) + width - SIMD_WIDTH) // width):
        if t % SEGMENT == 0 and t // SEGMENT < snapshots.shape[0]:
            snapshots[t // SEGMENT] = x
        store(scalars, SIMD_WIDTH, load(u, t * width))
        _step(p, stride, x, 0, 0, scalars, 0, y, t * width)
        store(scalars, 0, load(scalars, _Z))


@compiled
@no_type_check
def backward(p, u, snapshots, grad_y, g, grad_u, grad_p, width):
    """The adjoint of `forward`. g: gradient of the last state, then of the first. Adds to grad_p, writes grad_u."""
    size = len(g)
    stride = len(p) * _X // size
    states = np.zeros((SEGMENT + 1) * size, p.dtype)
    grads = np.zeros(SEGMENT * size, p.dtype)
    # For each step of the segment: s, u, G_s, G_y.
    scalars = np.zeros((SEGMENT + 1) * _Z, p.dtype)
    unused = np.zeros(SIMD_WIDTH, p.dtype)
    length = (len(u) + width - SIMD_WIDTH) // width
    for segment in range(snapshots.shape[0] - 1, -1, -1):
        start = segment * SEGMENT
        steps = min(SEGMENT, length - start)
        states[:size] = snapshots[segment]
        _first_s(p, stride, states, 0, scalars)
        for t in range(steps):
            store(scalars, t * _Z + SIMD_WIDTH, load(u, (start + t) * width))
            upper = load(grad_y, (start + t) * width)
            store(scalars, t * _Z + 3 * SIMD_WIDTH, upper + upper)
            _step(p, stride, states, t * size, (t + 1) * size, scalars, t * _Z, unused, 0)
        for t in range(steps - 1, -1, -1):
            _step_back(p, stride, g, grads, t * size, scalars, t * _Z, grad_u, (start + t) * width)
        for m in range(len(p) // stride):
            _collect(states, grads, scalars, steps, m * _X, size, grad_p, m * stride, stride > _L)


@compiled
@no_type_check
def _step_back(p, stride, g, grads, to, scalars, z, grad_u, o):
    """Keep the gradient of x' in grads[to], move g to that of x; G_s goes to `scalars`, G_u to grad_u[o]."""
    grad_y = load(scalars, z + 3 * SIMD_WIDTH)
    half_s, of_u = zeros(p), zeros(p)
    for m in range(len(p) // stride):
        q, i = m * stride, m * _X
        re = load(g, i) + grad_y * load(p, q + _C)
        im = load(g, i + SIMD_WIDTH) - grad_y * load(p, q + _C + SIMD_WIDTH)
        store(grads, to + i, re)
        store(grads, to + i + SIMD_WIDTH, im)
        if stride > _L:
            half_s = half_s + (load(p, q + _L) * re + load(p, q + _L + SIMD_WIDTH) * im)
        of_u = of_u + (load(p, q + _B) * re + load(p, q + _B + SIMD_WIDTH) * im)
    grad_s = half_s + half_s
    store(scalars, z + 2 * SIMD_WIDTH, grad_s)
    store(grad_u, o, of_u)
    for m in range(len(p) // stride):
        q, i = m * stride, m * _X
        re, im = load(grads, to + i), load(grads, to + i + SIMD_WIDTH)
        d_re, d_im = load(p, q + _D), load(p, q + _D + SIMD_WIDTH)
        of_re, of_im = d_re * re + d_im * im, d_re * im - d_im * re
        if stride > _L:
            of_re = of_re + grad_s * load(p, q + _R)
            of_im = of_im - grad_s * load(p, q + _R + SIMD_WIDTH)
        store(g, i, re + of_re)
        store(g, i + SIMD_WIDTH, im + of_im)


@compiled
@no_type_check
def _collect(states, grads, scalars, steps, i, size, out, q, coupled):
    """Add what the steps of a segment give to the gradients of one mode's parameters."""
    d_re = d_im = l_re = l_im = r_re = r_im = b_re = b_im = c_re = c_im = zeros(out)
    re, im = load(states, i), load(states, i + SIMD_WIDTH)
    for t in range(steps):
        x, z = t * size + i, t * _Z
        g_re, g_im = load(grads, x), load(grads, x + SIMD_WIDTH)
        u, grad_y = load(scalars, z + SIMD_WIDTH), load(scalars, z + 3 * SIMD_WIDTH)
        d_re = d_re + (g_re * re + g_im * im)
        d_im = d_im + (g_im * re - g_re * im)
        b_re = b_re + g_re * u
        b_im = b_im + g_im * u
        if coupled:
            s, grad_s = load(scalars, z), load(scalars, z + 2 * SIMD_WIDTH)
            l_re = l_re + g_re * s
            l_im = l_im + g_im * s
            r_re = r_re + grad_s * re
            r_im = r_im - grad_s * im
        re, im = load(states, x + size), load(states, x + size + SIMD_WIDTH)
        c_re = c_re + grad_y * re
        c_im = c_im - grad_y * im
    _add(out, q + _D, d_re, d_im)
    _add(out, q + _B, b_re, b_im)
    _add(out, q + _C, c_re, c_im)
    if coupled:
        _add(out, q + _L, l_re, l_im)
        _add(out, q + _R, r_re, r_im)


@compiled
@no_type_check
def _add(out, at, re, im):
    store(out, at, load(out, at) + re)
    store(out, at + SIMD_WIDTH, load(out, at + SIMD_WIDTH) + im)
