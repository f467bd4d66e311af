"""The experts of `reference_experts.py` in loops compiled by numba: the same sums, in float64 and a fixed order.

`s` is the state of one row, flat; `at` is where a channel's part begins in it. Windows of histories have their oldest
number first. No sum depends on chunks, rows or threads, and what is fused is an explicit `fma`, so that all machines
agree to the bit.
"""

import math
from typing import no_type_check

import numpy as np

from stereo_sashimi.experts.filters import adapt, dot, filtered, learn, log, squashed, window
from stereo_sashimi.experts.plan import (
    ASKED,
    BASES,
    BLEND_RATE,
    FRAMES,
    HEADER,
    MAIN_SPREAD,
    N_FRAME,
    N_MIXTURES,
    PAST_ERRORS,
    POSITION,
    SHARE,
    SHOWN_EXPERTS,
    SLACK,
    SMALLEST_ERROR,
    SMALLEST_MASS,
    SMALLEST_SPREAD,
    SPREAD_RATES,
    TINY,
)
from stereo_sashimi.experts.repeats import keep, repeated, search
from stereo_sashimi.ops.cpu.constants import SIMD_WIDTH
from stereo_sashimi.ops.cpu.vector import compiled, load, store
from stereo_sashimi.ops.cpu.vector_math import complement_of_exp, exp, product, sigmoid, splat


@compiled
@no_type_check
def run(plan, s, codes, base, frames):
    """All of `codes` (length, channels): `base` (length, channels) and `frames` (length, channels, numbers) of each."""
    for t in range(codes.shape[0]):
        for c in range(plan.n_channels):
            base[t, c] = predict(plan, s, c, frames[t, c])
            update(plan, s, c, codes[t, c], base[t, c], frames[t, c])
        advance(plan, s)


@compiled
@no_type_check
def outlook(plan, s, codes, base, frames):
    """The next frame as far as its first `codes` are given: `base` (channels) and `frames` (channels, numbers) of
    those channels and the one behind them. What is learnt goes into `s`, which then is of no other use."""
    for c in range(len(codes) + 1):
        base[c] = predict(plan, s, c, frames[c])
        if c < len(codes):
            update(plan, s, c, codes[c], base[c], frames[c])


@compiled
@no_type_check
def ask(plan, s, codes, frames, c):
    """Channel c of the frame to come, once those before it are in `codes`, to frames[c]; all channels in turn."""
    if c > 0:
        update(plan, s, c - 1, codes[c - 1], int(s[BASES + c - 1]), frames[c - 1])
    s[BASES + c] = predict(plan, s, c, frames[c])
    s[ASKED] = c + 1


@compiled
@no_type_check
def hear(plan, s, codes, frames):
    """The whole frame `codes`, of which all channels were asked about or none; then the frame is over."""
    last = plan.n_channels - 1
    for c in range(int(s[ASKED]), plan.n_channels):
        ask(plan, s, codes, frames, c)
    update(plan, s, last, codes[last], int(s[BASES + last]), frames[last])
    advance(plan, s)
    s[ASKED : BASES + plan.n_channels] = 0.0


@compiled
@no_type_check
def start(plan, s):
    """The state before the first frame of a track."""
    s[:] = 0.0
    for c in range(plan.n_channels):
        at = HEADER + c * plan.channel
        for i in range(len(SPREAD_RATES)):
            s[at + plan.spreads + i] = 1.0
        for k in range(N_MIXTURES):
            s[at + plan.posterior + k] = 1.0 / N_MIXTURES


@compiled
@no_type_check
def predict(plan, s, c, frame):
    """All that is known of the code of channel c before it: to `frame`. Returns the code that means count from."""
    at, p = HEADER + c * plan.channel, int(s[POSITION])
    experts, mixed, count = at + plan.values, at + plan.mixed, len(plan.least_squares)
    for i in range(count):
        ls = plan.least_squares[i]
        _gather(plan, s, ls, c, at, p)
        value = _clipped(plan, dot(s, at + ls.x, at + ls.w, ls.width))
        s[experts + 1 + i] = value
        s[mixed + i] = value if i == 0 else value - s[mixed]
    for i in range(len(plan.stages) - 1):
        cascade, place = i // plan.n_stages, i % plan.n_stages
        if place == 0:
            value = s[experts + 1 + cascade]
        found = filtered(plan, s, plan.stages[i], c, at, p)
        s[mixed + count + i] = found
        value += found
        s[experts + 1 + count + cascade] = _clipped(plan, value)
    if plan.repeats > 0:
        s[mixed + plan.n_mixed - 1] = repeated(plan, s, c, at, s[experts + 1])
    value = _blended(plan, s, at)
    value = _clipped(plan, value + filtered(plan, s, plan.stages[len(plan.stages) - 1], c, at, p))
    s[experts] = value
    base = math.floor(value + 0.5)
    _describe(plan, s, c, at, p, base, frame)
    return base + plan.n_levels // 2


@compiled
@no_type_check
def update(plan, s, c, code, base, frame):
    """Learn from the code of channel c, for which `predict` gave `base` and `frame`, whose last number is the error."""
    at, p = HEADER + c * plan.channel, int(s[POSITION])
    x = float(code - plan.n_levels // 2)
    experts, count = at + plan.values, len(plan.least_squares)
    for i in range(count):
        ls = plan.least_squares[i]
        # Turns that are spread over the frames keep the time of a frame even.
        learn(
            plan, s, at + ls.x, at + ls.rows, at + ls.w, ls.inputs, ls.width, x, x - s[experts + 1 + i], at + ls.error,
            ls.forgetting, ls.every,
        )  # fmt: skip
    for i in range(len(plan.stages) - 1):
        if i % plan.n_stages == 0:
            left = x - s[experts + 1 + i // plan.n_stages]
        left = adapt(plan, s, plan.stages[i], c, at, p, left)
    if plan.repeats > 0:
        keep(plan, s, c, at, x, x - s[experts + 1], s[at + plan.mixed + plan.n_mixed - 1])
    # What is learnt is how the weights differ from `prior`: that is where the ridge pulls them.
    target, blend = x - _expected(plan, s, at), at + plan.blend
    for i in range(len(plan.mixes)):
        ls, error = plan.mixes[i], x - s[blend + i]
        learn(
            plan, s, at + plan.mixed, at + ls.rows, at + ls.w, ls.inputs, ls.width, target, error, at + ls.error,
            ls.forgetting, ls.every,
        )  # fmt: skip
        mean = s[blend + SIMD_WIDTH + i]
        s[blend + SIMD_WIDTH + i] = max(mean + BLEND_RATE * (abs(error) - mean), TINY)
    error = x - s[blend + SIMD_WIDTH - 1]
    adapt(plan, s, plan.stages[len(plan.stages) - 1], c, at, p, error)
    _weigh(plan, s, at, code, base, frame)
    spread = max(s[at + plan.spreads + MAIN_SPREAD], SMALLEST_SPREAD)
    frame[N_FRAME - 1] = squashed((x - s[experts]) / spread)
    size = abs(x - s[experts])
    for i in range(len(SPREAD_RATES)):
        mean = s[at + plan.spreads + i]
        s[at + plan.spreads + i] = max(mean + SPREAD_RATES[i] * (size - mean), TINY)
    s[at + plan.history + p + plan.window] = x


@compiled
@no_type_check
def advance(plan, s):
    """To the next frame; now and then a search for repetitions, and the windows of all histories move to the front."""
    s[FRAMES] += 1.0
    if plan.repeats > 0 and int(s[FRAMES]) % plan.search == 0:
        search(plan, s)
    s[POSITION] += 1.0
    if s[POSITION] < SLACK:
        return
    s[POSITION] = 0.0
    for c in range(plan.n_channels):
        at = HEADER + c * plan.channel
        for i in range(plan.window):
            s[at + plan.history + i] = s[at + plan.history + SLACK + i]
        for i in range(len(plan.stages)):
            x = at + plan.stages[i].x
            for j in range(plan.stages[i].order):
                s[x + j] = s[x + SLACK + j]


@compiled
@no_type_check
def _blended(plan, s, at):
    """What the mixing least squares predict, averaged by the 8th power of what each was wrong by lately."""
    expected, value, whole, blend = _expected(plan, s, at), 0.0, 0.0, at + plan.blend
    for i in range(len(plan.mixes)):
        s[blend + i] = _clipped(plan, expected + dot(s, at + plan.mixed, at + plan.mixes[i].w, SIMD_WIDTH))
        weight = 1.0 / (s[blend + SIMD_WIDTH + i] + SMALLEST_ERROR)
        for _ in range(3):
            weight *= weight
        value += weight * s[blend + i]
        whole += weight
    s[blend + SIMD_WIDTH - 1] = _clipped(plan, value / whole)
    return s[blend + SIMD_WIDTH - 1]


@compiled
@no_type_check
def _expected(plan, s, at):
    """What is mixed, by the weights before anything is learnt."""
    value = 0.0
    for i in range(plan.n_mixed):
        value += plan.prior[i] * s[at + plan.mixed + i]
    return value


@compiled
@no_type_check
def _clipped(plan, value):
    """A prediction within the codes."""
    return min(max(value, -0.5 * plan.n_levels), 0.5 * plan.n_levels - 1.0)


@compiled
@no_type_check
def _gather(plan, s, ls, c, at, p):
    """The inputs of a least squares: past codes of the channel itself, then of the others."""
    x, end = at + ls.x, at + plan.history + plan.window
    for i in range(ls.own):
        s[x + i] = s[end + p - ls.own + i]
    x += ls.own
    for d in range(plan.n_channels):
        if d != c:
            begin = end - ls.other + window(plan, c, d, p)
            for i in range(ls.other):
                s[x + i] = s[begin + i]
            x += ls.other


@compiled
@no_type_check
def _describe(plan, s, c, at, p, base, frame):
    """Means, log scales and log weights of the reference mixture and the features of channel c, to `frame`."""
    experts, spreads = at + plan.values, at + plan.spreads
    spread = max(s[spreads + MAIN_SPREAD], SMALLEST_SPREAD)
    for k in range(N_MIXTURES):
        part = plan.mixture[k]
        frame[k] = s[experts + part.expert] - base
        size = max(s[spreads + part.spread], SMALLEST_SPREAD)
        frame[N_MIXTURES + k] = log(size) + part.log_factor
        frame[2 * N_MIXTURES + k] = log(s[at + plan.posterior + k])
    f = 3 * N_MIXTURES
    frame[f] = (log(spread) - plan.loudness) * 0.25 - 1.0
    f += 1
    for i in range(len(SPREAD_RATES)):
        if i != MAIN_SPREAD:
            frame[f] = log(max(s[spreads + i], SMALLEST_SPREAD) / spread)
            f += 1
    for i in range(1, 1 + min(SHOWN_EXPERTS, len(plan.least_squares) + (len(plan.stages) - 1) // plan.n_stages)):
        frame[f] = squashed((s[experts + i] - s[experts]) / spread)
        f += 1
    # Past errors of the mixed prediction, and those of this frame's earlier channels.
    last = plan.stages[len(plan.stages) - 1]
    for i in range(PAST_ERRORS):
        frame[f] = squashed(s[at + last.x + p + last.order - 1 - i] / spread)
        f += 1
    frame[f:] = 0.0
    if plan.coupled and c > 0:
        before = at - plan.channel
        error = s[before + last.x + p + last.order]
        frame[f] = squashed(error / max(s[before + plan.spreads + MAIN_SPREAD], SMALLEST_SPREAD))


@compiled
@no_type_check
def _weigh(plan, s, at, code, base, frame):
    """The weights of the reference mixture's logistics by what each gave to `code`; a SHARE of them is dealt anew."""
    scratch = np.empty(N_MIXTURES, np.float32)
    zero, half = splat(0.0), splat(0.5)
    distance = splat(np.float32(code - base)) - load(frame, 0)
    log_scale = load(frame, N_MIXTURES)
    inverse = exp(zero - log_scale)
    upper, lower = sigmoid(product(distance + half, inverse)), sigmoid(product(zero - (distance - half), inverse))
    inner = product(product(upper, lower), complement_of_exp(inverse))
    if code == 0:
        inner = upper
    elif code == plan.n_levels - 1:
        inner = lower
    store(scratch, 0, inner)
    posterior, whole = at + plan.posterior, 0.0
    for k in range(N_MIXTURES):
        s[posterior + k] *= max(np.float64(scratch[k]), SMALLEST_MASS)
        whole += s[posterior + k]
    for k in range(N_MIXTURES):
        s[posterior + k] = s[posterior + k] / whole * (1.0 - SHARE) + SHARE / N_MIXTURES
