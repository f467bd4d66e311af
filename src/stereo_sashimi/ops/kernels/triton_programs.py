"""The GPU programs of `triton.py`; imported only when they run, as this imports Triton.

Arrays are complex128 seen as float64 pairs (re, im), contiguous: v (rows, h, m), a (h, m), w (frequencies).
Per mode and frequency both denominators share one division,
  p = 1 - w a,  q = 1 - w conj(a):   U = 1/p = conj(p) |q|^2 / (|p|^2 |q|^2),   Z = 1/q = conj(q) |p|^2 / (|p|^2 |q|^2)
They stay two quotients. The one with real coefficients, (2 Re v - 2 w Re(v conj(a))) / (p q), is shorter, but its
denominator is a sum of terms of size 1, and loses twice the digits where a and w are both near 1 (p q = p^2).
Forward, with S = U + Z and D = U - Z, shared by all rows:  r(v) = sum_n Re(v) S + i Im(v) D.
Backward, with G = dL/dRe(r) + i dL/dIm(r) as torch has it, and dU/da = w U^2, dZ/dconj(a) = w Z^2:
  grad v = sum_w Re(conj(G) S) + i Re(i conj(G) D)
  grad a = sum_w X conj(w U^2) + Y w Z^2,   X = sum over rows G conj(v),   Y = sum over rows conj(G v)
Forward threads are frequencies and walk the modes, backward threads are modes and walk frequencies: a thread meets
no other, nothing is added atomically, and the same input gives the same bits.
"""

from typing import no_type_check

import triton
import triton.language as tl
from triton.runtime import JITFunction

# `no_type_check` keeps the tests' import hook away: Triton compiles the source text. Tiles have one axis, which
# leaves Triton no choice of layout, so the rows are written out; loops have constant bounds for its interpreter.


@triton.jit
@no_type_check
def reciprocals(a_re, a_im, w_re, w_im):
    """U and Z."""
    p_re = 1.0 - (w_re * a_re - w_im * a_im)
    p_im = -(w_re * a_im + w_im * a_re)
    q_re = 1.0 - (w_re * a_re + w_im * a_im)
    q_im = w_re * a_im - w_im * a_re
    p_abs2 = p_re * p_re + p_im * p_im
    q_abs2 = q_re * q_re + q_im * q_im
    inverse = 1.0 / (p_abs2 * q_abs2)
    over_p, over_q = q_abs2 * inverse, p_abs2 * inverse
    return p_re * over_p, -p_im * over_p, q_re * over_q, -q_im * over_q


@triton.jit
@no_type_check
def load(pointer, mask):
    """Real and imaginary part."""
    return tl.load(pointer, mask=mask, other=0.0), tl.load(pointer + 1, mask=mask, other=0.0)


@triton.jit
@no_type_check
def store(pointer, re, im, mask):
    """Real and imaginary part."""
    tl.store(pointer, re, mask=mask)
    tl.store(pointer + 1, im, mask=mask)


@triton.jit
@no_type_check
def add_term(out_re, out_im, v, s_re, s_im, d_re, d_im):
    """One row's sum with one mode more; v points to its (re, im)."""
    v_re, v_im = tl.load(v), tl.load(v + 1)
    return out_re + (v_re * s_re - v_im * d_im), out_im + (v_re * s_im + v_im * d_re)


@triton.jit
@no_type_check
def forward(
    v, a, w, out, channels, frequencies, ROWS: tl.constexpr, MODES: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Program (block of frequencies, channel) -> out (rows, h, frequencies)."""
    channel = tl.program_id(1).to(tl.int64)  # rows x h x frequencies may pass 2^31
    frequency = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = frequency < frequencies
    w_re, w_im = load(w + 2 * frequency, inside)
    r0 = tl.zeros((BLOCK,), dtype=tl.float64)
    i0, r1, i1, r2, i2, r3, i3 = r0, r0, r0, r0, r0, r0, r0
    for n in range(MODES):
        at = 2 * (channel * MODES + n)
        u_re, u_im, z_re, z_im = reciprocals(tl.load(a + at), tl.load(a + at + 1), w_re, w_im)
        s_re, s_im, d_re, d_im = u_re + z_re, u_im + z_im, u_re - z_re, u_im - z_im
        row = 2 * channels * MODES
        r0, i0 = add_term(r0, i0, v + at, s_re, s_im, d_re, d_im)
        if ROWS >= 2:
            r1, i1 = add_term(r1, i1, v + at + row, s_re, s_im, d_re, d_im)
        if ROWS >= 3:
            r2, i2 = add_term(r2, i2, v + at + 2 * row, s_re, s_im, d_re, d_im)
        if ROWS >= 4:
            r3, i3 = add_term(r3, i3, v + at + 3 * row, s_re, s_im, d_re, d_im)
    store(out + 2 * (channel * frequencies + frequency), r0, i0, inside)
    if ROWS >= 2:
        store(out + 2 * ((channels + channel) * frequencies + frequency), r1, i1, inside)
    if ROWS >= 3:
        store(out + 2 * ((2 * channels + channel) * frequencies + frequency), r2, i2, inside)
    if ROWS >= 4:
        store(out + 2 * ((3 * channels + channel) * frequencies + frequency), r3, i3, inside)


@triton.jit
@no_type_check
def add_gradient(sum_re, sum_im, x_re, x_im, y_re, y_im, grad, inside, v_re, v_im, s_re, s_im, d_re, d_im):
    """One row at one frequency: its gradient of v, and its share of X and Y; grad points to (re, im) of G."""
    g_re, g_im = load(grad, inside)
    rr, ii, ri, ir = g_re * v_re, g_im * v_im, g_re * v_im, g_im * v_re
    sum_re += g_re * s_re + g_im * s_im
    sum_im += g_im * d_re - g_re * d_im
    return sum_re, sum_im, x_re + (rr + ii), x_im + (ir - ri), y_re + (rr - ii), y_im - (ri + ir)


@triton.jit
@no_type_check
def times_square(w_re, w_im, t_re, t_im):
    """w t^2."""
    square_re, square_im = t_re * t_re - t_im * t_im, 2.0 * t_re * t_im
    return w_re * square_re - w_im * square_im, w_re * square_im + w_im * square_re


@triton.jit
@no_type_check
def backward(
    v, a, w, grad, grad_v, grad_a, channels, frequencies,
    ROWS: tl.constexpr, MODES: tl.constexpr, BLOCK: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    """Program (STEPS frequencies, channel, block of modes) -> its part of grad_v (parts, rows, h, m), grad_a."""
    part, channel = tl.program_id(0), tl.program_id(1).to(tl.int64)
    mode = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)
    valid = mode < MODES
    at, row = 2 * (channel * MODES + mode), 2 * channels * MODES
    a_re, a_im = load(a + at, valid)
    v0_re, v0_im = load(v + at, valid)
    v1_re, v1_im = load(v + at + row, valid & (ROWS >= 2))
    v2_re, v2_im = load(v + at + 2 * row, valid & (ROWS >= 3))
    v3_re, v3_im = load(v + at + 3 * row, valid & (ROWS >= 4))
    zero = tl.zeros((BLOCK,), dtype=tl.float64)
    r0, i0, r1, i1, r2, i2, r3, i3, a_sum_re, a_sum_im = zero, zero, zero, zero, zero, zero, zero, zero, zero, zero
    for step in range(STEPS):
        frequency = part * STEPS + step
        inside = frequency < frequencies
        w_re, w_im = load(w + 2 * frequency, inside)
        u_re, u_im, z_re, z_im = reciprocals(a_re, a_im, w_re, w_im)
        s_re, s_im, d_re, d_im = u_re + z_re, u_im + z_im, u_re - z_re, u_im - z_im
        g = grad + 2 * (channel * frequencies + frequency)
        r0, i0, x_re, x_im, y_re, y_im = add_gradient(
            r0, i0, zero, zero, zero, zero, g, inside, v0_re, v0_im, s_re, s_im, d_re, d_im
        )
        if ROWS >= 2:
            g = grad + 2 * ((channels + channel) * frequencies + frequency)
            r1, i1, x_re, x_im, y_re, y_im = add_gradient(
                r1, i1, x_re, x_im, y_re, y_im, g, inside, v1_re, v1_im, s_re, s_im, d_re, d_im
            )
        if ROWS >= 3:
            g = grad + 2 * ((2 * channels + channel) * frequencies + frequency)
            r2, i2, x_re, x_im, y_re, y_im = add_gradient(
                r2, i2, x_re, x_im, y_re, y_im, g, inside, v2_re, v2_im, s_re, s_im, d_re, d_im
            )
        if ROWS >= 4:
            g = grad + 2 * ((3 * channels + channel) * frequencies + frequency)
            r3, i3, x_re, x_im, y_re, y_im = add_gradient(
                r3, i3, x_re, x_im, y_re, y_im, g, inside, v3_re, v3_im, s_re, s_im, d_re, d_im
            )
        up_re, up_im = times_square(w_re, w_im, u_re, u_im)
        lo_re, lo_im = times_square(w_re, w_im, z_re, z_im)
        a_sum_re += (x_re * up_re + x_im * up_im) + (y_re * lo_re - y_im * lo_im)
        a_sum_im += (x_im * up_re - x_re * up_im) + (y_re * lo_im + y_im * lo_re)
    v_out = grad_v + part * ROWS * row + at
    store(v_out, r0, i0, valid)
    if ROWS >= 2:
        store(v_out + row, r1, i1, valid)
    if ROWS >= 3:
        store(v_out + 2 * row, r2, i2, valid)
    if ROWS >= 4:
        store(v_out + 3 * row, r3, i3, valid)
    store(grad_a + part * row + at, a_sum_re, a_sum_im, valid)


# TRITON_INTERPRET=1, set before Triton is imported, makes numpy run the programs, on any device.
INTERPRETED = not isinstance(forward, JITFunction)
