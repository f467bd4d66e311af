"""The compiled engine's loop over frames: draw a frame or take a known one, embed it, run the plan. See `pack.py`.

A plan is a table of operations in the order of `models/sashimi.py`. An operation that belongs to a level of the
backbone runs at every `stride`-th frame, when the group of frames below it is complete.
"""

from typing import no_type_check

from stereo_sashimi.generation.engines.compiled.draw import draw_frame
from stereo_sashimi.generation.engines.compiled.layers import advance, dense, gated, normalise, ready
from stereo_sashimi.ops.cpu.constants import SIMD_WIDTH
from stereo_sashimi.ops.cpu.vector import compiled, load, store

# Operations, and the columns of a plan: vectors X (in) and Y (out), where weights begin (W), and
#   NORM     A width, B number of its epsilon             DENSE   A inputs, B vectors of outputs, C what `dense` does
#   ADVANCE  A groups, B modes, C parts, X_STEP state     GATED   A inputs, B vectors of each half
#   COPY, PLUS  A vectors; frame i of a group of POOL stands i X_STEP behind X, i Y_STEP behind Y
NORM, ADVANCE, DENSE, GATED, COPY, PLUS = range(6)
OP, STRIDE, X, Y, W, A, B, C, X_STEP, Y_STEP, POOL, COLUMNS = range(12)


@compiled
@no_type_check
def operate(op, w, epsilons, phase, memory, size, first, last):
    """One operation of the plan at one frame."""
    x, y = op[X], op[Y]
    if op[POOL] > 1:
        # Where this frame stands in its group of the level above.
        place = (phase + 1) // op[STRIDE] - 1
        x += place % op[POOL] * op[X_STEP]
        y += place % op[POOL] * op[Y_STEP]
    kind = op[OP]
    if kind == NORM:
        normalise(w, op[W], op[A], epsilons[op[B]], memory, size, first, last, x, y)
    elif kind == ADVANCE:
        advance(w, op[W], op[A], op[B], op[C], memory, size, first, last, x, y, op[X_STEP])
    elif kind == DENSE:
        dense(w, op[W], op[A], op[B], memory, size, first, last, x, y, op[C])
    elif kind == GATED:
        gated(w, op[W], op[A], op[B], memory, size, first, last, x, y)
    else:
        for row in range(first, last):
            for i in range(0, op[A] * SIMD_WIDTH, SIMD_WIDTH):
                v = load(memory, row * size + x + i)
                if kind == PLUS:
                    v = v + load(memory, row * size + y + i)
                store(memory, row * size + y + i, v)


@compiled
@no_type_check
def embed(codes, t, tables, merge, memory, size, first, last, y):
    """Rows of the tables (channels, n_levels, d_model) of frame t at memory[y]: side by side, or summed."""
    channels, d_model = tables.shape[0], tables.shape[2]
    for row in range(first, last):
        base = row * size + y
        for c in range(channels):
            table = tables[c, codes[row, t, c]]
            if merge and c:
                for i in range(d_model):
                    memory[base + i] += table[i]
            else:
                at = base if merge else base + c * d_model
                for i in range(d_model):
                    memory[at + i] = table[i]


@compiled
@no_type_check
def feed(plan, w, epsilons, tables, embedding, memory, size, first, last, phase, codes, t):
    """The rows take frame t of `codes`: embed it, run the operations that are due at `phase`."""
    embed(codes, t, tables, embedding[0], memory, size, first, last, embedding[1])
    for o in range(len(plan)):
        if (phase + 1) % plan[o, STRIDE] == 0:
            operate(plan[o], w, epsilons, phase, memory, size, first, last)


@compiled
@no_type_check
def run(plan, w, epsilons, tables, embedding, head, mixers, memory, size, first, last, phase, codes, uniforms, sampling,
        log_prob, hidden):  # fmt: skip
    """All frames of `codes` (rows, frames, channels) for the rows from `first` to `last`.

    With `uniforms` (rows, frames, channels, n_uniforms) of as many frames, frames are drawn into `codes`, and
    `log_prob` of the shape of `codes` is filled; with none they are given. `hidden` (rows, frames, width), if it has
    frames, takes the features after each. `embedding`: (summed, where to). `head`: see `draws.py`.
    """
    draws, keeps = uniforms.shape[1] > 0, hidden.shape[1] > 0
    for t in range(codes.shape[1]):
        if draws:
            draw_frame(head, w, mixers, memory, size, first, last, codes, t, uniforms, sampling, log_prob)
        feed(plan, w, epsilons, tables, embedding, memory, size, first, last, phase, codes, t)
        phase += 1
        if keeps:
            for row in range(first, last):
                for i in range(hidden.shape[2]):
                    hidden[row, t, i] = memory[row * size + i]


@compiled
@no_type_check
def make_ready(plan, w, memory, size, rows):
    """What the operations keep beside the states that are carried, made from those."""
    for o in range(len(plan)):
        op = plan[o]
        if op[OP] == ADVANCE:
            ready(w, op[W], op[A], op[B], op[C], memory, size, 0, rows, op[X_STEP])
