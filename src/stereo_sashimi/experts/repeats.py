"""The repetition among the experts, in loops compiled by numba: where the recording was like this before.

Loops, samples and drum machines play the same sound again, to the bit or nearly so. Now and then the last frames of
what the first least squares leaves over are compared with all of its past; from the best place on, its neighbourhood
predicts what is left over now.
"""

from typing import no_type_check

import numpy as np

from stereo_sashimi.experts.filters import dot, learn
from stereo_sashimi.experts.plan import FRAMES, HEADER, LAG, REPEAT_LEAST, REPEATED
from stereo_sashimi.ops.cpu.constants import SIMD_WIDTH
from stereo_sashimi.ops.cpu.vector import compiled, load, store
from stereo_sashimi.ops.cpu.vector_math import fma, splat

_FOUR = 4 * SIMD_WIDTH


@compiled
@no_type_check
def repeated(plan, s, c, at, value):
    """What the repetition predicts of what is left over in channel c by `value`; 0 where there is none."""
    if s[LAG] == 0.0:
        return 0.0
    ls = plan.repeat[0]
    x, first = at + ls.x, int(s[FRAMES]) - int(s[LAG]) - REPEATED // 2
    for k in range(plan.n_channels):
        # The channel itself first.
        d = c if k == 0 else (k - 1 if k <= c else k)
        rest = HEADER + d * plan.channel + plan.rest
        # A remainder for each of these would take longer than all else here.
        place = first % plan.repeats
        for i in range(REPEATED):
            s[x + k * REPEATED + i] = s[rest + place]
            place = place + 1 if place + 1 < plan.repeats else 0
    # In place of the last one what would be left over if the code were that of then: an exact copy leaves nothing else.
    s[x + REPEATED - 1] = s[at + plan.past + (first + REPEATED // 2) % plan.repeats] - value
    return dot(s, x, at + ls.w, ls.width)


@compiled
@no_type_check
def keep(plan, s, c, at, x, rest, found):
    """Learn from what was left over of x in channel c, of which `found` was predicted, and remember both."""
    frames = int(s[FRAMES])
    if s[LAG] > 0.0:
        ls = plan.repeat[0]
        learn(
            plan, s, at + ls.x, at + ls.rows, at + ls.w, ls.inputs, ls.width, rest, rest - found, at + ls.error,
            ls.forgetting, ls.every,
        )  # fmt: skip
    s[at + plan.rest + frames % plan.repeats] = rest
    s[at + plan.past + frames % plan.repeats] = x


@compiled
@no_type_check
def search(plan, s):
    """Set the lag to where the last frames, of all channels together, are most alike; where nothing is, it stays."""
    frames, length = int(s[FRAMES]), plan.match
    n = min(frames, plan.repeats)
    if n < 2 * length:
        return
    # Oldest first; some zeros behind, that whole vectors can be read.
    h, sums = np.zeros(n + _FOUR, np.float32), np.empty(_FOUR, np.float32)
    place = (frames - n) % plan.repeats
    for i in range(n):
        value = 0.0
        for c in range(plan.n_channels):
            value += s[HEADER + c * plan.channel + plan.rest + place]
        h[i] = value
        place = place + 1 if place + 1 < plan.repeats else 0
    last, own, energy = n - length, 0.0, 0.0
    for i in range(length):
        own += np.float64(h[last + i]) * np.float64(h[last + i])
        energy += np.float64(h[i]) * np.float64(h[i])
    if own < 1.0:
        return
    best, lag = REPEAT_LEAST * REPEAT_LEAST, 0
    for a in range(0, last - length + 1, _FOUR):
        s0, s1, s2, s3 = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
        for i in range(length):
            v, j = splat(h[last + i]), a + i
            s0 = fma(load(h, j), v, s0)
            s1 = fma(load(h, j + SIMD_WIDTH), v, s1)
            s2 = fma(load(h, j + 2 * SIMD_WIDTH), v, s2)
            s3 = fma(load(h, j + 3 * SIMD_WIDTH), v, s3)
        store(sums, 0, s0)
        store(sums, SIMD_WIDTH, s1)
        store(sums, 2 * SIMD_WIDTH, s2)
        store(sums, 3 * SIMD_WIDTH, s3)
        for j in range(min(_FOUR, last - length + 1 - a)):
            value = np.float64(sums[j])
            if value > 0.0 and energy >= 1.0 and value * value > best * own * energy:
                best, lag = value * value / (own * energy), last - a - j
            old, new = np.float64(h[a + j]), np.float64(h[a + j + length])
            energy += new * new - old * old
    if lag > 0:
        s[LAG] = lag
