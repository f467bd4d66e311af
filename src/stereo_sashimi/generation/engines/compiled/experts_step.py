"""Adaptive experts in a `Program`: asked channel by channel before a frame, told of it behind (`step.py`).

A program without them (`experts` None) is another type to numba, for which these functions do nothing.
"""

from typing import Any, no_type_check

from numba import types
from numba.extending import overload

from stereo_sashimi.experts import loops
from stereo_sashimi.experts.plan import BASES, N_FEATURES, N_FRAME, N_MIXTURES
from stereo_sashimi.generation.engines.compiled.program import Program
from stereo_sashimi.generation.engines.compiled.step import ask, centre, dense, hear, shift
from stereo_sashimi.ops.cpu.constants import SIMD_WIDTH
from stereo_sashimi.ops.cpu.vector import compiled, load, store
from stereo_sashimi.ops.cpu.vector_math import exp, fma


@compiled
@no_type_check
def _ask(program, rows, codes, t, c):
    bank, w, memory = program.experts, program.weights, rows.memory
    for row in range(rows.first, rows.last):
        base = row * rows.size
        said = memory[base + bank.said : base + bank.said + bank.plan.n_channels * N_FRAME].reshape(-1, N_FRAME)
        loops.ask(bank.plan, rows.experts[row], codes[row, t], said, c)
        inputs = base + bank.inputs
        for i in range(bank.width):
            memory[inputs + i] = memory[base + i]
        inputs += bank.width + c * N_FEATURES
        for i in range(N_FEATURES):
            memory[inputs + i] = said[c, 3 * N_MIXTURES + i]
    dense(bank.inner[c], w, rows)


@compiled
@no_type_check
def _shift(program, rows, c):
    bank, p, memory = program.experts, program.head.parameters, rows.memory
    for row in range(rows.first, rows.last):
        to, at = row * rows.size + p, row * rows.size + bank.said + c * N_FRAME
        log_scale = load(memory, at + SIMD_WIDTH)
        scale = exp(log_scale)
        mean, own = load(memory, at), to + SIMD_WIDTH
        store(memory, to, load(memory, to) + load(memory, at + 2 * SIMD_WIDTH))
        store(memory, own, fma(load(memory, own), scale, mean))
        store(memory, own + SIMD_WIDTH, load(memory, own + SIMD_WIDTH) + log_scale)


@compiled
@no_type_check
def tell_experts(program, rows, codes, t):
    """Frame t of `codes`, to the experts and, as features and errors, to the backbone."""
    bank, memory = program.experts, rows.memory
    for row in range(rows.first, rows.last):
        base = row * rows.size
        said = memory[base + bank.said : base + bank.said + bank.plan.n_channels * N_FRAME].reshape(-1, N_FRAME)
        loops.hear(bank.plan, rows.experts[row], codes[row, t], said)
        for c in range(bank.plan.n_channels):
            for i in range(N_FEATURES + 1):
                memory[base + bank.heard + c * (N_FEATURES + 1) + i] = said[c, 3 * N_MIXTURES + i]


_OPTIONS = {"nogil": True, "error_model": "numpy", "boundscheck": False}
_EXPERTS = Program._fields.index("experts")


def _has_experts(program: Any) -> bool:
    return not isinstance(program.types[_EXPERTS], types.NoneType)


@overload(ask, jit_options=_OPTIONS)
@no_type_check
def _ask_of(program, rows, codes, t, c):
    return _ask_them if _has_experts(program) else lambda program, rows, codes, t, c: None


@overload(shift, jit_options=_OPTIONS)
@no_type_check
def _shift_of(program, rows, c):
    return _shift_them if _has_experts(program) else lambda program, rows, c: None


@overload(hear, jit_options=_OPTIONS)
@no_type_check
def _hear_of(program, rows, codes, t):
    return _hear_them if _has_experts(program) else lambda program, rows, codes, t: None


@overload(centre, jit_options=_OPTIONS)
@no_type_check
def _centre_of(program, rows, row, c):
    if _has_experts(program):
        return lambda program, rows, row, c: rows.experts[row, BASES + c]
    return lambda program, rows, row, c: program.head.n_levels / 2


@no_type_check
def _ask_them(program, rows, codes, t, c):
    _ask(program, rows, codes, t, c)


@no_type_check
def _shift_them(program, rows, c):
    _shift(program, rows, c)


@no_type_check
def _hear_them(program, rows, codes, t):
    tell_experts(program, rows, codes, t)
