"""The GPU programs of `triton_step.py`; imported only when they run, as this imports Triton.

Complex arrays are seen as pairs (re, im), contiguous: a, b, c, left, right (h, m), state (rows, h, m). Symbols and
equations are those of `ops/discretize.py` and `distributions/logistic_mixture.py`. A program owns its channel, or
its distribution: nothing is added atomically, and the same input gives the same bits.
"""

from typing import no_type_check

import triton
import triton.language as tl

from stereo_sashimi.ops.kernels.triton_programs import load, store


@triton.jit
@no_type_check
def s4_step(
    a, b, c, left, right, d_skip, u, state, out, channels,
    MODES: tl.constexpr, BLOCK: tl.constexpr, RANK_ONE: tl.constexpr,
):  # fmt: skip
    """Program (row, channel): new = a x + b u + left 2 Re(sum right x), out = gelu(2 Re(sum c new) + D u)."""
    row, channel = tl.program_id(0).to(tl.int64), tl.program_id(1)
    mode = tl.arange(0, BLOCK)
    valid = mode < MODES
    at, here = 2 * (channel * MODES + mode), 2 * ((row * channels + channel) * MODES + mode)
    u_now = tl.load(u + row * channels + channel)
    x_re, x_im = load(state + here, valid)
    a_re, a_im = load(a + at, valid)
    b_re, b_im = load(b + at, valid)
    c_re, c_im = load(c + at, valid)
    new_re = a_re * x_re - a_im * x_im + b_re * u_now
    new_im = a_re * x_im + a_im * x_re + b_im * u_now
    if RANK_ONE:
        left_re, left_im = load(left + at, valid)
        right_re, right_im = load(right + at, valid)
        inner = 2 * tl.sum(right_re * x_re - right_im * x_im, axis=0)
        new_re += left_re * inner
        new_im += left_im * inner
    store(state + here, new_re, new_im, valid)
    y = 2 * tl.sum(c_re * new_re - c_im * new_im, axis=0) + tl.load(d_skip + channel) * u_now
    tl.store(out + row * channels + channel, y * 0.5 * (1 + tl.erf(y * 0.7071067811865476)))


@triton.jit
@no_type_check
def soft_bound(x, LOW: tl.constexpr, HIGH: tl.constexpr):
    """`distributions.dml.soft_bound`."""
    above, below = tl.maximum(x - HIGH, 0.0), tl.maximum(LOW - x, 0.0)
    return tl.minimum(tl.maximum(x, LOW), HIGH) + (1 - 1 / (1 + above)) - (1 - 1 / (1 + below))


@triton.jit
@no_type_check
def log_softmax(x):
    """Normalised log masses; -inf where x is, which happens outside the mixture only."""
    x = x - tl.max(x, axis=0)
    return x - tl.log(tl.sum(tl.exp(x), axis=0))


@triton.jit
@no_type_check
def log_sigmoid(x):
    """Without overflow; float64, so that log(1 + e) loses nothing that float32 would show."""
    return tl.minimum(x, 0.0) - tl.log(1 + tl.exp(-tl.abs(x)))


@triton.jit
@no_type_check
def dml_draw(
    params, uniform, codes, log_probs,
    MIXTURES: tl.constexpr, BLOCK: tl.constexpr, LEVELS: tl.constexpr, LOG_HALF: tl.constexpr,
    MIXTURE_TEMPERATURE: tl.constexpr, SCALE_TEMPERATURE: tl.constexpr,
    MEAN_LOW: tl.constexpr, MEAN_HIGH: tl.constexpr, SCALE_LOW: tl.constexpr, SCALE_HIGH: tl.constexpr,
):  # fmt: skip
    """Program (row): draw the code in float64, then its log mass with arguments in the precision of `params`."""
    row = tl.program_id(0).to(tl.int64)
    k = tl.arange(0, BLOCK)
    valid = k < MIXTURES
    here = params + row * 3 * MIXTURES + k
    log_weight = log_softmax(tl.load(here, mask=valid, other=float("-inf")).to(tl.float64))
    means = tl.load(here + MIXTURES, mask=valid, other=0.0)
    log_scales = tl.load(here + 2 * MIXTURES, mask=valid, other=0.0)

    if MIXTURE_TEMPERATURE == 0.0:
        chosen = tl.argmax(log_weight, axis=0)
    else:
        mass = tl.exp(log_softmax(log_weight / MIXTURE_TEMPERATURE))
        total = tl.cumsum(mass, axis=0)
        # The first logistic whose cumulative mass exceeds u. The end stands at 1, which u < 1 does not reach.
        end = tl.max(total, axis=0)
        below = (total <= tl.load(uniform + 2 * row) * end) & (total < end) & (k < MIXTURES - 1)
        chosen = tl.sum(below.to(tl.int32), axis=0)
    position = tl.sum(tl.where(k == chosen, soft_bound(means.to(tl.float64) * (LEVELS / 2), MEAN_LOW, MEAN_HIGH), 0.0))
    if SCALE_TEMPERATURE != 0.0:
        log_scale = soft_bound(log_scales.to(tl.float64) + LOG_HALF, SCALE_LOW, SCALE_HIGH)
        scale = tl.sum(tl.where(k == chosen, tl.exp(log_scale), 0.0)) * SCALE_TEMPERATURE
        u = tl.load(uniform + 2 * row + 1)
        # 1 - u is exact: u is a multiple of 2^-53. u = 0 stands at minus infinity.
        quantile = tl.log(tl.where(u > 0, u, 1.0)) - tl.log(1 - u)
        position = tl.where(u > 0, position + scale * quantile, float("-inf"))
    code = tl.minimum(tl.maximum(tl.floor(position + (LEVELS / 2 + 0.5)), 0.0), LEVELS - 1.0)
    tl.store(codes + row, code.to(tl.int64))

    mean = soft_bound(means * (LEVELS / 2), MEAN_LOW, MEAN_HIGH)
    width = tl.exp(-soft_bound(log_scales + LOG_HALF, SCALE_LOW, SCALE_HIGH))
    centre = (code - LEVELS / 2).to(mean.dtype)
    below_upper = log_sigmoid(((centre + 0.5 - mean) * width).to(tl.float64))
    above_lower = log_sigmoid((-(centre - 0.5 - mean) * width).to(tl.float64))
    w = width.to(tl.float64)
    # 1 - exp(-w), by its series where the difference would cancel.
    near = w * (1 - w / 2 * (1 - w / 3 * (1 - w / 4)))
    inside = below_upper + above_lower + tl.log(tl.where(w < 1e-4, near, 1 - tl.exp(-w)))
    cell = tl.where(code == 0, below_upper, tl.where(code == LEVELS - 1, above_lower, inside))
    joint = tl.where(valid, log_weight + cell, float("-inf"))
    largest = tl.max(joint, axis=0)
    tl.store(log_probs + row, (largest + tl.log(tl.sum(tl.exp(joint - largest), axis=0))).to(mean.dtype))
