"""One frame through the embedding and the backbone of a `Program`, in loops compiled by numba.

Each operation takes all rows: rows are the inner loop, so that weights that were read once serve all of them from the
nearest cache. `w` are the program's weights, in the order of `packed_weights.py`.

Each number is a sum in a fixed order over explicit fused multiply-adds (`ops/cpu/vector_math.py`): it depends neither
on the rows around it nor on the machine.
"""

from typing import Any, no_type_check

import numpy as np

from stereo_sashimi.generation.engines.compiled.program import ADD, ADVANCE, DENSE, GATED, GELU, NORM, PLUS
from stereo_sashimi.ops.cpu.constants import SIMD_WIDTH
from stereo_sashimi.ops.cpu.vector import compiled, load, store, zeros
from stereo_sashimi.ops.cpu.vector_math import fma, fnma, gelu, inlined, product, sigmoid, splat, total

_PAIR, _FOUR = 2 * SIMD_WIDTH, 4 * SIMD_WIDTH


# Of adaptive experts; `experts_step.py` implements them by the type of `program`, without experts as nothing.
def ask(program: Any, rows: Any, codes: Any, t: Any, c: Any) -> None:
    """What they say of channel c of frame t, and the first map of its network; `codes` has the channels before it."""


def shift(program: Any, rows: Any, c: Any) -> None:
    """Parameters of channel c, which differ from the experts' mixture -> those of a mixture, in LSB from `centre`."""


def hear(program: Any, rows: Any, codes: Any, t: Any) -> None:
    """Tell them of frame t."""


def centre(program: Any, rows: Any, row: Any, c: Any) -> Any:
    """The position, as a code, that the means of channel c count from."""


@compiled
@no_type_check
def feed(program, rows, phase, codes, t):
    """The rows take frame t of `codes` (rows, frames, channels): embed it, run the operations due at `phase`."""
    hear(program, rows, codes, t)
    _embed(program, rows, codes, t)
    w, operations = program.weights, program.operations
    for o in range(len(operations)):
        op = operations[o]
        if (phase + 1) % op.stride:
            continue
        if op.kind == NORM:
            _norm(op, w, rows)
        elif op.kind == ADVANCE:
            _advance(op, w, rows)
        elif op.kind == DENSE:
            dense(op, w, rows)
        elif op.kind == GATED:
            _gated(op, w, rows)
        else:
            _copy(op, rows, phase)


@compiled
@no_type_check
def make_ready(program, rows):
    """Compute what operations keep beside the states that are carried, from those."""
    for o in range(len(program.operations)):
        if program.operations[o].kind == ADVANCE:
            _make_s(program.operations[o], program.weights, rows)


@compiled
@no_type_check
def _embed(program, rows, codes, t):
    """Rows of the tables, side by side or summed."""
    tables, memory = program.tables, rows.memory
    channels, d_model = tables.shape[0], tables.shape[2]
    for row in range(rows.first, rows.last):
        base = row * rows.size + program.embedded
        for c in range(channels):
            table, adds = tables[c, codes[row, t, c]], program.summed and c > 0
            at = base if program.summed else base + c * d_model
            for i in range(d_model):
                memory[at + i] = memory[at + i] + table[i] if adds else table[i]


@compiled
@no_type_check
def _copy(op, rows, phase):
    """y = x, or y += x for PLUS. With a pool, x or y is that of this frame in its group."""
    memory, adds, x, y, end = rows.memory, op.kind == PLUS, op.x, op.y, op.groups * SIMD_WIDTH
    if op.pool > 1:
        place = ((phase + 1) // op.stride - 1) % op.pool
        x += place * op.x_step
        y += place * op.y_step
    for row in range(rows.first, rows.last):
        for i in range(row * rows.size, row * rows.size + end, SIMD_WIDTH):
            v = load(memory, i + x)
            if adds:
                v = v + load(memory, i + y)
            store(memory, i + y, v)


@compiled
@no_type_check
def _norm(op, w, rows):
    """y = (x - mean) r scale + r shift + bias, r = 1 / sqrt(variance + epsilon): layer norm and the scalar norm.

    The weights are scale, shift, bias and a mask (1 for channels, 0 for what fills the last vector up).
    """
    memory, at, width, epsilon = rows.memory, op.at, op.width, op.epsilon
    end = -(-width // SIMD_WIDTH) * SIMD_WIDTH
    for row in range(rows.first, rows.last):
        x, y = row * rows.size + op.x, row * rows.size + op.y
        s = zeros(w)
        for i in range(0, end, SIMD_WIDTH):
            s = s + load(memory, x + i)
        mean = splat(total(s) / np.float32(width))
        s = zeros(w)
        for i in range(0, end, SIMD_WIDTH):
            d = product(load(memory, x + i) - mean, load(w, at + 3 * end + i))
            s = fma(d, d, s)
        r = splat(np.float32(1.0) / np.sqrt(total(s) / np.float32(width) + np.float32(epsilon)))
        for i in range(0, end, SIMD_WIDTH):
            d = product(load(memory, x + i) - mean, load(w, at + i))
            store(memory, y + i, fma(d + load(w, at + end + i), r, load(w, at + 2 * end + i)))


@compiled
@no_type_check
def _advance(op, w, rows):
    """One step of a state space model, its skip and GELU: y = gelu(2 Re(C x') + D u), see `ops/s4_response.py:step`.

    The weights are D, then for each group of SIMD_WIDTH channels `parts` vectors a mode: the real and imaginary parts
    of delta, B, 2 C and, for DPLR, left and 2 right. The state has for each group s = 2 Re(right x), and the modes of
    x.
    """
    memory, at, groups, modes, parts = rows.memory, op.at, op.groups, op.modes, op.parts
    stride, one = parts * SIMD_WIDTH, SIMD_WIDTH * (1 + 2 * modes)
    u, y, state = op.x, op.y, op.state
    for g in range(groups):
        p = at + groups * SIMD_WIDTH + g * modes * stride
        for row in range(rows.first, rows.last):
            base = row * rows.size
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
def _make_s(op, w, rows):
    """s of `_advance` from the modes of x, to the last bit as `_advance` leaves it."""
    memory, at, groups, modes, parts = rows.memory, op.at, op.groups, op.modes, op.parts
    stride, one = parts * SIMD_WIDTH, SIMD_WIDTH * (1 + 2 * modes)
    for g in range(groups):
        p = at + groups * SIMD_WIDTH + g * modes * stride
        for row in range(rows.first, rows.last):
            x = row * rows.size + op.state + g * one
            s_re, s_im = zeros(w), zeros(w)
            if parts > 6:
                for m in range(modes):
                    q, i = p + m * stride, x + SIMD_WIDTH + m * _PAIR
                    s_re = fma(load(w, q + 8 * SIMD_WIDTH), load(memory, i), s_re)
                    s_im = fma(load(w, q + 9 * SIMD_WIDTH), load(memory, i + SIMD_WIDTH), s_im)
            store(memory, x, s_re - s_im)


@compiled
@no_type_check
def dense(op, w, rows):
    """A linear map to an even number of vectors.

    The weights are tiles of four vectors of outputs, and one of two where two are left (`_four`, `_two`).
    """
    memory, at, n_in, groups, finish = rows.memory, op.at, op.width, op.groups, op.finish
    x, y = op.x, op.y
    for g in range(0, groups - 2, 4):
        for row in range(rows.first, rows.last):
            o = row * rows.size + y + g * SIMD_WIDTH
            a, b, c, d = _four(w, at, n_in, memory, row * rows.size + x)
            _finish(memory, o, a, finish)
            _finish(memory, o + SIMD_WIDTH, b, finish)
            _finish(memory, o + 2 * SIMD_WIDTH, c, finish)
            _finish(memory, o + 3 * SIMD_WIDTH, d, finish)
        at += (n_in + 1) * _FOUR
    if groups % 4:
        for row in range(rows.first, rows.last):
            o = row * rows.size + y + (groups - 2) * SIMD_WIDTH
            a, b = _two(w, at, n_in, memory, row * rows.size + x)
            _finish(memory, o, a, finish)
            _finish(memory, o + SIMD_WIDTH, b, finish)


@compiled
@no_type_check
def _gated(op, w, rows):
    """y += a sigmoid(b), where (a, b) is a linear map of x to `groups` vectors each: GLU with the residual sum.

    Tiles have two vectors of a and the same of b, the last one of each where one is left.
    """
    memory, at, n_in, groups = rows.memory, op.at, op.width, op.groups
    x, y = op.x, op.y
    for g in range(0, groups - 1, 2):
        for row in range(rows.first, rows.last):
            o = row * rows.size + y + g * SIMD_WIDTH
            a, b, c, d = _four(w, at, n_in, memory, row * rows.size + x)
            store(memory, o, fma(a, sigmoid(c), load(memory, o)))
            store(memory, o + SIMD_WIDTH, fma(b, sigmoid(d), load(memory, o + SIMD_WIDTH)))
        at += (n_in + 1) * _FOUR
    if groups % 2:
        for row in range(rows.first, rows.last):
            o = row * rows.size + y + (groups - 1) * SIMD_WIDTH
            a, b = _two(w, at, n_in, memory, row * rows.size + x)
            store(memory, o, fma(a, sigmoid(b), load(memory, o)))


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
def _finish(memory, y, v, finish):
    if finish == GELU:
        v = gelu(v)
    elif finish == ADD:
        v = load(memory, y) + v
    store(memory, y, v)
