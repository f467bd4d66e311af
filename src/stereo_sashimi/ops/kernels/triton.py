"""The Cauchy sums of `cauchy.py` as fused GPU programs (Triton), forward and backward, in float64.

Nothing of size channels x modes x frequencies is stored: neither pass keeps or recomputes a block in memory. The
programs and their formulas are in `triton_programs.py`, imported only when this backend is chosen.
"""

from functools import cache
from typing import Any

import torch
from jaxtyping import Complex
from torch import Tensor

from stereo_sashimi.ops.backend_error import BackendError
from stereo_sashimi.ops.kernels import cauchy

MAX_ROWS = 4  # that a program writes out
# One frequency a thread forward, one mode a thread backward.
FREQUENCIES_PER_BLOCK = 128
MODES_PER_BLOCK = 32
# The backward pass splits the frequencies into parts, which torch adds: enough of them to fill a GPU, but no more
# than this, as each holds a gradient of v and a.
MAX_PARTS = 64
MIN_STEPS = 64
# Fused multiply-add is Triton's default so far; unset, Triton 3.9 warns that it will not remain so.
OPTIONS = {"num_stages": 1, "enable_fp_fusion": True}


def triton_sum(
    v: Complex[Tensor, "rows h m"], a: Complex[Tensor, "h m"], w: Complex[Tensor, " frequencies"]
) -> Complex[Tensor, "rows h frequencies"]:
    """sum_n v_n/(1 - w a_n) + conj(v_n)/(1 - w conj(a_n)), complex128, differentiable once in v and a, not in w.

    Raises ValueError for another dtype, BackendError for tensors that are not on a CUDA device.
    """
    for name, tensor in (("v", v), ("a", a), ("w", w)):
        if tensor.dtype != torch.complex128:
            raise ValueError(f"{name} must be complex128, as 1 - w a cancels near the circle; got {tensor.dtype}.")
    rows = [_sum(part, a, w) for part in v.split(MAX_ROWS)]
    return rows[0] if len(rows) == 1 else torch.cat(rows)


@cache
def probe() -> None:
    """Raise BackendError unless Triton's programs run here."""
    try:
        on = "cpu" if interpreted() else "cuda"
    except (ImportError, OSError) as error:
        raise BackendError(
            f"backend=triton needs the package triton, which does not import ({type(error).__name__}: {error}). "
            "CUDA builds of torch for Linux bring it along; else `pip install triton`, or use backend=auto."
        ) from error
    if on == "cuda" and not torch.cuda.is_available():
        raise BackendError(
            "backend=triton needs a CUDA device, and torch sees none. Use backend=auto. "
            "(TRITON_INTERPRET=1 in the environment runs it without one, slowly.)"
        )
    try:
        value = triton_sum(*cauchy.one_term(on))
    except Exception as error:  # No C compiler, a driver too old for this Triton, a GPU it does not know, ..
        raise BackendError(
            f"backend=triton does not run here ({type(error).__name__}: {error}). "
            "It needs a C compiler and a driver that fits torch's CUDA; or use backend=auto."
        ) from error
    cauchy.refuse_wrong("triton", value)


# Custom operators: torch.compile and fake tensors take their shapes from below and do not look inside.
@torch.library.custom_op("stereo_sashimi::cauchy_sum", mutates_args=())
def _sum(v: Tensor, a: Tensor, w: Tensor) -> Tensor:
    """`triton_sum` of at most MAX_ROWS rows."""
    refuse_device(v, "backend=auto")
    v, a, w = _in_order(v, a, w)
    rows, channels, modes = v.shape
    out = v.new_empty(rows, channels, w.numel())
    grid = (-(-w.numel() // FREQUENCIES_PER_BLOCK), channels)
    with torch.cuda.device_of(v):
        _programs().forward[grid](
            *map(torch.view_as_real, (v, a, w, out)),
            *(channels, w.numel()),
            ROWS=rows,
            MODES=modes,
            BLOCK=FREQUENCIES_PER_BLOCK,
            num_warps=FREQUENCIES_PER_BLOCK // 32,
            **OPTIONS,
        )
    return out


@torch.library.custom_op("stereo_sashimi::cauchy_sum_backward", mutates_args=())
def _sum_backward(v: Tensor, a: Tensor, w: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of (v, a)."""
    refuse_device(v, "backend=auto")
    v, a, w, grad = _in_order(v, a, w, grad)
    rows, channels, modes = v.shape
    # A power of two, so that lengths share their compiled programs.
    steps = max(MIN_STEPS, 1 << (-(-w.numel() // MAX_PARTS) - 1).bit_length())
    parts = -(-w.numel() // steps)
    grad_v, grad_a = v.new_empty(parts, *v.shape), a.new_empty(parts, *a.shape)
    grid = (parts, channels, -(-modes // MODES_PER_BLOCK))
    with torch.cuda.device_of(v):
        _programs().backward[grid](
            *map(torch.view_as_real, (v, a, w, grad, grad_v, grad_a)),
            *(channels, w.numel()),
            ROWS=rows,
            MODES=modes,
            BLOCK=MODES_PER_BLOCK,
            STEPS=steps,
            num_warps=MODES_PER_BLOCK // 32,
            **OPTIONS,
        )
    return grad_v.sum(0), grad_a.sum(0)


@_sum.register_fake
def _(v: Tensor, a: Tensor, w: Tensor) -> Tensor:
    return v.new_empty(v.shape[0], v.shape[1], w.shape[0])


@_sum_backward.register_fake
def _(v: Tensor, a: Tensor, w: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    return v.new_empty(v.shape), a.new_empty(a.shape)


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
    return *_sum_backward(*ctx.saved_tensors, grad), None


_sum.register_autograd(_gradients, setup_context=_save)


def _in_order(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The programs read (re, im) pairs: contiguous, no conjugation left for later."""
    return tuple(x.resolve_conj().contiguous() for x in tensors)


def refuse_device(x: Tensor, instead: str) -> None:
    """Raise BackendError unless Triton's programs can read this tensor, ImportError without Triton."""
    if not (x.is_cuda or interpreted()):
        raise BackendError(
            f"Triton's programs run on a CUDA device; the model is on {x.device}. "
            f"Move it to one (trainer=gpu, device=cuda), or use {instead}."
        )


def interpreted() -> bool:
    """Whether numpy runs the programs (TRITON_INTERPRET=1) instead of a GPU. Raises ImportError without Triton."""
    return bool(_programs().INTERPRETED)


def _programs() -> Any:
    """The module of the programs: its import needs Triton and settles whether they are compiled or interpreted."""
    from stereo_sashimi.ops.kernels import triton_programs

    return triton_programs
