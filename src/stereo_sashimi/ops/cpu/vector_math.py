"""More on the vectors of `vector.py`, to the last bit alike on every machine: fused products, exp, sigmoid, GELU, sums.

`fma`, `fnma` and `product` leave the compiler no choice of what to fuse; functions are polynomials in a fixed order,
sums of a vector a fixed tree. So float32 results depend neither on the processor nor on the library of its system.
"""

import math
from typing import no_type_check

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, register_jitable

from stereo_sashimi.ops.cpu.constants import SIMD_WIDTH
from stereo_sashimi.ops.cpu.vector import Vector

# Composed of the intrinsics below at each call: no call is left, and vectors stay in registers.
inlined = register_jitable(inline="always")

_INT, _FLOAT = ir.VectorType(ir.IntType(32), SIMD_WIDTH), ir.VectorType(ir.FloatType(), SIMD_WIDTH)


@no_type_check
def _fma(builder, a, b, c):
    name = f"llvm.fma.v{SIMD_WIDTH}f{32 if a.type.element == ir.FloatType() else 64}"
    function_type = ir.FunctionType(a.type, [a.type] * 3)
    return builder.call(builder.module.declare_intrinsic(name, (), function_type), [a, b, c])


@intrinsic
@no_type_check
def fma(typingctx, a, b, c):
    """a b + c, rounded once."""
    return a(a, b, c), lambda context, builder, signature, args: _fma(builder, *args)


@intrinsic
@no_type_check
def fnma(typingctx, a, b, c):
    """c - a b, rounded once."""

    def codegen(context, builder, signature, args):
        return _fma(builder, builder.fneg(args[0]), args[1], args[2])

    return a(a, b, c), codegen


@intrinsic
@no_type_check
def product(typingctx, a, b):
    """a b, rounded before anything is added to it (the operator * may fuse)."""
    return a(a, b), lambda context, builder, signature, args: builder.fmul(*args)


@intrinsic
@no_type_check
def quotient(typingctx, a, b):
    """a / b."""
    return a(a, b), lambda context, builder, signature, args: builder.fdiv(*args)


@intrinsic
@no_type_check
def splat(typingctx, number):
    """A float32 vector of one number."""

    def codegen(context, builder, signature, args):
        (value,) = args
        if signature.args[0] == types.float64:
            value = builder.fptrunc(value, ir.FloatType())
        one = builder.insert_element(ir.Constant(_FLOAT, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
        return builder.shuffle_vector(
            one,
            ir.Constant(_FLOAT, ir.Undefined),
            ir.Constant(ir.VectorType(ir.IntType(32), SIMD_WIDTH), [0] * SIMD_WIDTH),
        )

    if number not in (types.float32, types.float64):
        return None
    return Vector(types.float32)(number), codegen


@intrinsic
@no_type_check
def larger(typingctx, a, b):
    """The larger of each pair; b where a is NaN."""

    def codegen(context, builder, signature, args):
        return builder.select(builder.fcmp_ordered(">", *args), *args)

    return a(a, b), codegen


@intrinsic
@no_type_check
def if_negative(typingctx, x, yes, no):
    """`yes` where x < 0, else `no`."""

    def codegen(context, builder, signature, args):
        x, yes, no = args
        return builder.select(builder.fcmp_ordered("<", x, ir.Constant(x.type, None)), yes, no)

    return x(x, yes, no), codegen


@intrinsic
@no_type_check
def magnitude(typingctx, x):
    """|x|."""

    def codegen(context, builder, signature, args):
        kind, width = args[0].type, 32 if args[0].type.element == ir.FloatType() else 64
        whole = ir.VectorType(ir.IntType(width), SIMD_WIDTH)
        rest = ir.Constant(whole, [(1 << (width - 1)) - 1] * SIMD_WIDTH)
        return builder.bitcast(builder.and_(builder.bitcast(args[0], whole), rest), kind)

    return x(x), codegen


@intrinsic
@no_type_check
def _times_power_of_two(typingctx, x, shifted):
    """x 2**n, where the low bits of the float32 vector `shifted` = 1.5 * 2**23 + n hold n."""

    def codegen(context, builder, signature, args):
        x, shifted = (builder.bitcast(arg, _INT) for arg in args)
        exponent = builder.shl(shifted, ir.Constant(_INT, [23] * SIMD_WIDTH))
        return builder.bitcast(builder.add(x, exponent), _FLOAT)

    return x(x, shifted), codegen


@intrinsic
@no_type_check
def total(typingctx, x):
    """The sum of a vector, halves added to halves."""

    def codegen(context, builder, signature, args):
        (x,) = args
        width = SIMD_WIDTH
        while width > 1:
            width //= 2
            low, high = (
                builder.shuffle_vector(
                    x, x, ir.Constant(ir.VectorType(ir.IntType(32), width), list(range(start, start + width)))
                )
                for start in (0, width)
            )
            x = builder.fadd(low, high)
        return builder.extract_element(x, ir.Constant(ir.IntType(32), 0))

    return x.dtype(x), codegen


LOG2_E = 1 / math.log(2)
# ln 2 in two parts; n times the first is exact for |n| < 2**11.
LN2_HIGH = 0.693145751953125
LN2_LOW = math.log(2) - LN2_HIGH
# 1.5 * 2**23: the sum with a small number has its nearest integer in the low bits.
ROUNDER = 12582912.0


@inlined
@no_type_check
def exp_of_negative(x):
    """exp(x) for x <= 0 in float32, to a relative 2e-7; below -87 as at -87 (so for NaN)."""
    x = larger(x, splat(-87.0))
    shifted = fma(x, splat(LOG2_E), splat(ROUNDER))
    n = shifted - splat(ROUNDER)
    r = fnma(n, splat(LN2_LOW), fnma(n, splat(LN2_HIGH), x))
    # Taylor's series; |r| <= ln(2) / 2 makes its rest 5e-9.
    y = fma(r, splat(1 / 5040), splat(1 / 720))
    y = fma(y, r, splat(1 / 120))
    y = fma(y, r, splat(1 / 24))
    y = fma(y, r, splat(1 / 6))
    y = fma(y, r, splat(0.5))
    y = fma(y, r, splat(1.0))
    y = fma(y, r, splat(1.0))
    return _times_power_of_two(y, shifted)


@inlined
@no_type_check
def exp(x):
    """exp(x) in float32, to a relative 3e-7, for |x| <= 87; beyond as there."""
    zero = splat(0.0)
    return quotient(exp_of_negative(zero - larger(zero - x, zero)), exp_of_negative(zero - larger(x, zero)))


@inlined
@no_type_check
def complement_of_exp(x):
    """1 - exp(-x) for x >= 0 in float32; a polynomial where the difference would lose digits."""
    y = fnma(x, splat(1 / 5), splat(1.0))
    for n in (4.0, 3.0, 2.0):
        y = fnma(product(x, splat(1.0 / n)), y, splat(1.0))
    return if_negative(x - splat(0.1), product(x, y), splat(1.0) - exp_of_negative(splat(0.0) - x))


@inlined
@no_type_check
def sigmoid(x):
    """1 / (1 + exp(-x)), to an absolute 2e-7."""
    e = exp_of_negative(splat(0.0) - magnitude(x))
    low = quotient(e, splat(1.0) + e)
    return if_negative(x, low, splat(1.0) - low)


@inlined
@no_type_check
def gelu(x):
    """x Phi(x), Phi the normal distribution's cumulative probability: to an absolute 2e-7 |x|.

    Abramowitz and Stegun (1964), 7.1.26: erfc(z) = t P(t) exp(-z^2), t = 1 / (1 + 0.3275911 z).
    """
    z = product(magnitude(x), splat(math.sqrt(0.5)))
    t = quotient(splat(1.0), fma(z, splat(0.3275911), splat(1.0)))
    p = fma(t, splat(1.061405429), splat(-1.453152027))
    p = fma(p, t, splat(1.421413741))
    p = fma(p, t, splat(-0.284496736))
    p = fma(p, t, splat(0.254829592))
    e = exp_of_negative(product(splat(0.0) - z, z))
    tail = product(product(product(p, t), e), splat(0.5))
    return product(x, if_negative(x, tail, splat(1.0) - tail))
