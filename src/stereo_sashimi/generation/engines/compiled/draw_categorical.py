"""Categorical codes by inverse CDF, as in `distributions/categorical.py`: masses and their sums over 16 in float32."""

import math
from typing import no_type_check

import numpy as np

from stereo_sashimi.generation.engines.compiled.sampling_numbers import TEMPERATURE, TOP_K, TOP_P
from stereo_sashimi.ops.cpu.constants import SIMD_WIDTH
from stereo_sashimi.ops.cpu.vector import compiled, load, store
from stereo_sashimi.ops.cpu.vector_math import exp_of_negative, if_negative, larger, product, splat, total


@compiled
@no_type_check
def categorical(memory, logits, masses, groups, n_levels, uniform, sampling):
    """A code and its log-probability. memory[logits] has whole vectors, filled up with -1e30; [masses] has room."""
    top = _largest(memory, logits, groups, masses)
    everything = _masses(memory, logits, masses, groups, top, 1.0)
    if sampling[TEMPERATURE] == 0:
        code = 0
        while memory[logits + code] < top:
            code += 1
    else:
        drawn_from = everything
        if sampling[TEMPERATURE] != 1:
            drawn_from = _masses(memory, logits, masses, groups, top, 1 / sampling[TEMPERATURE])
        if sampling[TOP_K] > 0 or sampling[TOP_P] < 1:
            p = memory[masses : masses + n_levels]
            drawn_from = _keep_likely(p, drawn_from, int(sampling[TOP_K]), sampling[TOP_P])
        code = min(_first_beyond(memory, masses, groups, uniform * drawn_from), n_levels - 1)
    return code, np.float64(memory[logits + code]) - np.float64(top) - math.log(everything)


@compiled
@no_type_check
def _largest(memory, x, groups, room):
    highest = load(memory, x)
    for i in range(SIMD_WIDTH, groups * SIMD_WIDTH, SIMD_WIDTH):
        highest = larger(load(memory, x + i), highest)
    store(memory, room, highest)
    top = memory[room]
    for i in range(1, SIMD_WIDTH):
        top = max(top, memory[room + i])
    return top


@compiled
@no_type_check
def _masses(memory, logits, masses, groups, top, factor):
    """exp((logits - top) factor) to memory[masses], exactly 0 below e^-87; their sum in float64."""
    everything = 0.0
    for i in range(0, groups * SIMD_WIDTH, SIMD_WIDTH):
        x = product(load(memory, logits + i) - splat(top), splat(factor))
        mass = if_negative(x + splat(87.0), splat(0.0), exp_of_negative(x))
        store(memory, masses + i, mass)
        everything += total(mass)
    return everything


@compiled
@no_type_check
def _first_beyond(memory, masses, groups, target):
    """The first code at which the running sum of masses exceeds `target`, summed as `_masses` does."""
    before = 0.0
    for i in range(masses, masses + groups * SIMD_WIDTH, SIMD_WIDTH):
        after = before + total(load(memory, i))
        if after > target:
            last = i
            for j in range(i, i + SIMD_WIDTH):
                before += memory[j]
                if memory[j] > 0:
                    last = j
                    if before > target:
                        break
            return last - masses
        before = after
    # Only rounding at the very end comes here: the last code that has mass.
    last = groups * SIMD_WIDTH - 1
    while last > 0 and memory[masses + last] == 0:
        last -= 1
    return last


@compiled
@no_type_check
def _keep_likely(p, everything, top_k, top_p):
    """Zero the masses that top_k and top_p cut off (ties stay with the lower code); the sum of the others."""
    order = np.argsort(-p, kind="mergesort")
    k = len(p) if top_k == 0 else min(top_k, len(p))
    if k < len(p):
        everything = 0.0
        for i in range(k):
            everything += p[order[i]]
    kept = 0.0
    for i in range(len(p)):
        # A code stays while the codes before it hold less than top_p of the mass that top_k left.
        if i < k and kept < top_p * everything:
            kept += p[order[i]]
        else:
            p[order[i]] = 0
    return kept
