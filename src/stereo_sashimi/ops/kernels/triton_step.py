"""One frame's small work as single GPU programs (Triton): the step of an S4 layer, and the draw from a DML head.

Plain torch needs 16 kernels for the one and 100 for the other, and a kernel of this size costs its launch alone. The
programs are in `triton_step_programs.py`, imported only when one runs.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Complex, Float, Float64, Int64
from torch import Tensor

from stereo_sashimi.ops.discretize import Discrete
from stereo_sashimi.ops.kernels import triton

THREADS = 32  # of a warp: a channel's modes, or the logistics of a distribution, seldom are more
MAX_WARPS = 4


class PackedStep(NamedTuple):
    """What a step reads, each (h, m), complex and contiguous; `rank_one` says whether `left` and `right` count."""

    a: Tensor
    b: Tensor
    c: Tensor
    left: Tensor
    right: Tensor
    rank_one: bool


def pack(ssm: Discrete) -> PackedStep:
    """Prepare for `s4_step`, in the precision that `ssm` has."""
    # Diagonal layers have no rank-one part; the program does not read what stands in for it.
    left, right = (ssm.c if x is None else x for x in (ssm.left, ssm.right))
    a, b, c, left, right = (x.resolve_conj().contiguous() for x in (ssm.a, ssm.b, ssm.c, left, right))
    return PackedStep(a, b, c, left, right, ssm.left is not None)


def s4_step(
    packed: PackedStep,
    d_skip: Float[Tensor, " h"],
    u: Float[Tensor, "batch h"],
    state: Complex[Tensor, "batch h m"],
) -> Float[Tensor, "batch h"]:
    """gelu(y + D u) with y, state = `ops.s4_response.step(ssm, u, state)`; overwrites `state` with the new one.

    complex64 with float32, or complex128 with float64. Raises BackendError off a CUDA device, ValueError for a state
    that is not contiguous.
    """
    if not state.is_contiguous() or state.is_conj():
        raise ValueError("s4_step writes into its state, which must be contiguous and not a conjugate view.")
    return _s4_step(*packed, d_skip, u.contiguous(), state)


def dml_draw(
    params: Float[Tensor, "rows parameters"],
    uniform: Float64[Tensor, "rows 2"],
    n_levels: int,
    mixture_temperature: float,
    scale_temperature: float,
    mean_lsb: tuple[float, float],
    log_scale_lsb: tuple[float, float],
) -> tuple[Int64[Tensor, " rows"], Float[Tensor, " rows"]]:
    """Codes by `distributions.dml.sample`, and their `log_prob` under the untempered parameters, for float32, float64.

    `mean_lsb`, `log_scale_lsb`: the bounds of `distributions.dml`. Raises BackendError off a CUDA device.
    """
    temperatures = [float(mixture_temperature), float(scale_temperature)]
    codes, log_prob = _dml_draw(
        params.contiguous(), uniform.contiguous(), n_levels, temperatures, mean_lsb, log_scale_lsb
    )
    return codes, log_prob


# Custom operators: fake and meta tensors take their shapes from below and do not look inside.
@torch.library.custom_op("stereo_sashimi::s4_step", mutates_args=("state",))
def _s4_step(
    a: Tensor, b: Tensor, c: Tensor, left: Tensor, right: Tensor, rank_one: bool, skip: Tensor, u: Tensor, state: Tensor
) -> Tensor:
    programs = _programs(u)
    out = torch.empty_like(u)
    rows, channels, modes = state.shape
    with torch.cuda.device_of(u):
        # Rows first: a grid's other axes end at 65,535.
        programs.s4_step[(rows, channels)](
            *map(torch.view_as_real, (a, b, c, left, right)),
            *(skip, u, torch.view_as_real(state), out, channels),
            MODES=modes,
            **_block(modes),
            RANK_ONE=rank_one,
            **triton.OPTIONS,
        )
    return out


@_s4_step.register_fake
def _(*arguments: Any) -> Tensor:
    return torch.empty_like(arguments[-2])


@torch.library.custom_op("stereo_sashimi::dml_draw", mutates_args=())
def _dml_draw(
    params: Tensor,
    uniform: Tensor,
    n_levels: int,
    temperatures: Sequence[float],
    mean_lsb: Sequence[float],
    log_scale_lsb: Sequence[float],
) -> tuple[Tensor, Tensor]:
    programs = _programs(params)
    rows, mixtures = params.shape[0], params.shape[1] // 3
    codes, log_prob = params.new_empty(rows, dtype=torch.int64), params.new_empty(rows)
    with torch.cuda.device_of(params):
        # Numbers known at compile time keep float64; as arguments they would arrive in float32.
        programs.dml_draw[(rows,)](
            *(params, uniform, codes, log_prob),
            MIXTURES=mixtures,
            **_block(mixtures),
            LEVELS=n_levels,
            LOG_HALF=math.log(n_levels / 2),
            MIXTURE_TEMPERATURE=temperatures[0],
            SCALE_TEMPERATURE=temperatures[1],
            MEAN_LOW=mean_lsb[0],
            MEAN_HIGH=mean_lsb[1],
            SCALE_LOW=log_scale_lsb[0],
            SCALE_HIGH=log_scale_lsb[1],
            **triton.OPTIONS,
        )
    return codes, log_prob


@_dml_draw.register_fake
def _(params: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return params.new_empty(params.shape[0], dtype=torch.int64), params.new_empty(params.shape[0])


def _block(items: int) -> dict[str, int]:
    """One program holds all items; its tile is a power of two."""
    block = 1 << max(0, items - 1).bit_length()
    return {"BLOCK": block, "num_warps": max(1, min(block // THREADS, MAX_WARPS))}


def _programs(x: Tensor) -> Any:
    """The module of the programs, whose import needs Triton."""
    triton.refuse_device(x, "engine=auto")
    from stereo_sashimi.ops.kernels import triton_step_programs

    return triton_step_programs
