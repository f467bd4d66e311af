"""Vectors of SIMD_WIDTH numbers inside numba functions (`compiled`): `load`, `store`, `zeros`, and the operators + - *.

LLVM turns each into the vector instructions of the machine at hand (AVX-512, AVX2, NEON). Loops over numbers would have
to be found and proven free of overlaps by its vectoriser, which gives up where several arrays are read and written.
Products and sums may fuse ("contract"); nothing else is reordered, so a result does not depend on the machine's load.
"""

import hashlib
import operator
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, no_type_check

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.caching import FunctionCache
from numba.core.datamodel import models, register_default
from numba.extending import intrinsic, lower_builtin, type_callable

from stereo_sashimi.ops.cpu.constants import SIMD_WIDTH


def compiled(function: Callable[..., Any]) -> Any:
    """`function` compiled by numba when it is first called, and kept on disk where there is a folder for it.

    It runs without Python's lock. Decorate with `no_type_check` below: that keeps the tests' import hook away, whose
    wrappers numba cannot compile.
    """
    dispatcher: Any = njit(nogil=True, error_model="numpy", boundscheck=False)(function)
    # Without a folder that can be written, neither this one nor the user's own, it is compiled anew in each process.
    with suppress(RuntimeError):
        dispatcher._cache = _Cache(function)
    return dispatcher


def is_kept(function: Any) -> bool:
    """Whether a `compiled` function has machine code on disk, so that its first call does not compile."""
    return isinstance(function._cache, _Cache) and function._cache.holds_any()


class _Cache(FunctionCache):
    """numba's cache looks at the file of a function alone; here functions also contain what other files define."""

    @no_type_check
    def holds_any(self):
        try:
            return any(key[-1] == _sources() for key in self._cache_file._load_index())
        except (AttributeError, ImportError):
            return False

    @no_type_check
    def load_overload(self, sig, target_context):
        try:
            return super().load_overload(sig, target_context)
        except (AttributeError, ImportError):
            # The index names classes of an earlier version of this package that are there no more.
            self.flush()
            return None

    @no_type_check
    def _index_key(self, sig, codegen):
        return (*super()._index_key(sig, codegen), _sources())


@cache
def _sources() -> str:
    """A hash of all files of this package that the loops may be made of: those of this folder and their importers."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parents[2].rglob("*.py")):
        text = path.read_bytes()
        if b"stereo_sashimi.ops.cpu." in text or path.parent == Path(__file__).parent:
            digest.update(text)
    return digest.hexdigest()


class Vector(types.Type):
    """The numba type of SIMD_WIDTH numbers of one floating-point type."""

    @no_type_check
    def __init__(self, dtype):
        self.dtype = dtype
        super().__init__(name=f"Vector({dtype}, {SIMD_WIDTH})")


@register_default(Vector)
class _VectorModel(models.PrimitiveModel):
    @no_type_check
    def __init__(self, manager, fe_type):
        number = ir.FloatType() if fe_type.dtype == types.float32 else ir.DoubleType()
        super().__init__(manager, fe_type, ir.VectorType(number, SIMD_WIDTH))


@no_type_check
def _address(context, builder, array_type, array, index, vector):
    data = context.make_array(array_type)(context, builder, array).data
    pointer = cgutils.gep(builder, data, index)
    return builder.bitcast(pointer, context.get_value_type(vector).as_pointer())


@intrinsic
@no_type_check
def load(typingctx, array, index):
    """The SIMD_WIDTH numbers from flat `array`[index] on."""
    vector = Vector(array.dtype)

    def codegen(context, builder, signature, args):
        pointer = _address(context, builder, signature.args[0], args[0], args[1], vector)
        # Only the alignment of one number is promised.
        return builder.load(pointer, align=array.dtype.bitwidth // 8)

    return vector(array, types.intp), codegen


@intrinsic
@no_type_check
def store(typingctx, array, index, value):
    """Write SIMD_WIDTH numbers to flat `array`[index] and what follows."""

    def codegen(context, builder, signature, args):
        pointer = _address(context, builder, signature.args[0], args[0], args[1], value)
        builder.store(args[2], pointer, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), codegen


@intrinsic
@no_type_check
def zeros(typingctx, like):
    """Zeros of the numbers' type of the array `like`."""
    vector = Vector(like.dtype)

    def codegen(context, builder, signature, args):
        return context.get_constant_null(vector)

    return vector(like), codegen


@intrinsic
@no_type_check
def broadcast(typingctx, like, number):
    """SIMD_WIDTH times a float64 number, for float64 arrays as `like`."""
    vector = Vector(like.dtype)

    def codegen(context, builder, signature, args):
        kind, whole = context.get_value_type(vector), ir.VectorType(ir.IntType(32), SIMD_WIDTH)
        one = builder.insert_element(ir.Constant(kind, ir.Undefined), args[1], ir.Constant(ir.IntType(32), 0))
        return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), ir.Constant(whole, None))

    return vector(like, like.dtype), codegen


@no_type_check
def _operator(function, instruction):
    @type_callable(function)
    def typer(context):
        def of(a, b):
            return a if isinstance(a, Vector) and a == b else None

        return of

    @lower_builtin(function, Vector, Vector)
    def lower(context, builder, signature, args):
        return getattr(builder, instruction)(*args, flags=("contract",))


_operator(operator.add, "fadd")
_operator(operator.sub, "fsub")
_operator(operator.mul, "fmul")
