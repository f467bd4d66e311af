"""Linear maps in loops compiled by numba: weights in tiles, rows as the inner loop (see `step.py`)."""

from typing import no_type_check

from stereo_sashimi.generation.engines.compiled.program import ADD, GELU
from stereo_sashimi.ops.cpu.constants import SIMD_WIDTH
from stereo_sashimi.ops.cpu.vector import compiled, load, store
from stereo_sashimi.ops.cpu.vector_math import fma, gelu, inlined, splat

_PAIR, FOUR = 2 * SIMD_WIDTH, 4 * SIMD_WIDTH


@compiled
@no_type_check
def dense(op, w, rows):
    """A linear map to an even number of vectors.

    The weights are tiles of four vectors of outputs, and one of two where two are left (`four`, `two`).
    """
    memory, at, n_in, groups, finish = rows.memory, op.at, op.width, op.groups, op.finish
    x, y = op.x, op.y
    for g in range(0, groups - 2, 4):
        for row in range(rows.first, rows.last):
            o = row * rows.size + y + g * SIMD_WIDTH
            a, b, c, d = four(w, at, n_in, memory, row * rows.size + x)
            _finish(memory, o, a, finish)
            _finish(memory, o + SIMD_WIDTH, b, finish)
            _finish(memory, o + 2 * SIMD_WIDTH, c, finish)
            _finish(memory, o + 3 * SIMD_WIDTH, d, finish)
        at += (n_in + 1) * FOUR
    if groups % 4:
        for row in range(rows.first, rows.last):
            o = row * rows.size + y + (groups - 2) * SIMD_WIDTH
            a, b = two(w, at, n_in, memory, row * rows.size + x)
            _finish(memory, o, a, finish)
            _finish(memory, o + SIMD_WIDTH, b, finish)


@inlined
@no_type_check
def four(w, at, n_in, memory, x):
    """Four vectors of outputs: w[at] has their biases, then for each input four vectors of weights."""
    a, b, c, d = load(w, at), load(w, at + SIMD_WIDTH), load(w, at + 2 * SIMD_WIDTH), load(w, at + 3 * SIMD_WIDTH)
    for k in range(n_in):
        v, q = splat(memory[x + k]), at + (k + 1) * FOUR
        a = fma(load(w, q), v, a)
        b = fma(load(w, q + SIMD_WIDTH), v, b)
        c = fma(load(w, q + 2 * SIMD_WIDTH), v, c)
        d = fma(load(w, q + 3 * SIMD_WIDTH), v, d)
    return a, b, c, d


@inlined
@no_type_check
def two(w, at, n_in, memory, x):
    """Two vectors of outputs, as `four`."""
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
