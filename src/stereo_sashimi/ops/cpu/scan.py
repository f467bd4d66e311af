"""The recurrence of one S4 layer stepped on CPUs by compiled loops (`scan_loops.py`), with its adjoint.

A step costs about 10 multiply-adds a mode, so up to some ten thousand frames the whole response is cheaper than the
matrix powers of a convolution kernel; `ops/s4_response.py:recurrence` is the same thing to read.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import product
from typing import Any

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from stereo_sashimi.ops.backend_error import BackendError
from stereo_sashimi.ops.cpu.constants import SEGMENT, SIMD_WIDTH
from stereo_sashimi.ops.discretize import Discrete


def scan(
    ssm: Discrete, u: Float[Tensor, "batch length h"], state: Complex[Tensor, "batch h m"] | None
) -> tuple[Float[Tensor, "batch length h"], Complex[Tensor, "batch h m"]]:
    """y_t = 2 Re(C x_{t+1}), x_{t+1} = A_bar x_t + B_bar u_t from `state` (None: at rest), in the precision of `u`.

    Returns y and the last state. Raises BackendError for tensors on a GPU.
    """
    if u.device.type not in ("cpu", "meta"):
        raise BackendError(
            f"backend=recurrent runs on CPUs, and these tensors are on {u.device}. Use backend=auto or krylov."
        )
    h, m = ssm.delta.shape
    pad = -h % SIMD_WIDTH
    packed = pack(ssm, u.dtype)
    if state is None:
        x = u.new_zeros(len(u), (h + pad) // SIMD_WIDTH, m * 2 * SIMD_WIDTH)
    else:
        x = pack_state(state, u.dtype).flatten(2)
    y, x, _ = torch.ops.stereo_sashimi.recurrent(
        packed, _padded(u, (0, pad)).contiguous(), x.contiguous(), _needs_grad(packed, u, x)
    )
    # A slice of everything would cost its backward pass a copy.
    return y[..., :h] if pad else y, unpack_state(x.unflatten(2, (m, 2, SIMD_WIDTH)), h)


def kernel(ssm: Discrete, length: int, dtype: torch.dtype | None = None) -> Float[Tensor, "h length"]:
    """K_l = 2 Re(C A_bar^l B_bar) for l < length: the response to an impulse, in `dtype` (None: that of `ssm`)."""
    dtype = dtype or ssm.delta.real.dtype
    impulse = torch.zeros(1, length, len(ssm.delta), dtype=dtype, device=ssm.delta.device)
    impulse[:, :1] = 1
    return scan(ssm, impulse, None)[0][0].mT


def pack(ssm: Discrete, dtype: torch.dtype) -> Float[Tensor, "groups numbers"]:
    """Parameters as loops over groups of SIMD_WIDTH channels read them: of a group (modes, parts, SIMD_WIDTH)."""
    coupling = [] if ssm.left is None or ssm.right is None else [ssm.left, ssm.right]
    fields = torch.stack([ssm.delta, ssm.b, ssm.c, *coupling])
    parts = _padded(torch.view_as_real(fields).to(dtype), (0, 0, 0, 0, 0, -len(ssm.delta) % SIMD_WIDTH))
    # (part, group, channel, mode, re or im) -> (group, mode, part, re or im, channel)
    return parts.unflatten(1, (-1, SIMD_WIDTH)).permute(1, 3, 0, 4, 2).flatten(1).contiguous()


def pack_state(state: Complex[Tensor, "batch h m"], dtype: torch.dtype) -> Float[Tensor, "batch groups m 2 width"]:
    """A state as these loops keep it."""
    parts = _padded(torch.view_as_real(state).to(dtype), (0, 0, 0, 0, 0, -state.shape[1] % SIMD_WIDTH))
    return parts.unflatten(1, (-1, SIMD_WIDTH)).permute(0, 1, 3, 4, 2)


def unpack_state(packed: Float[Tensor, "batch groups m 2 width"], h: int) -> Complex[Tensor, "batch h m"]:
    """The inverse of `pack_state`."""
    parts = packed.permute(0, 1, 4, 2, 3).flatten(1, 2)
    return torch.view_as_complex((parts[:, :h] if h < parts.shape[1] else parts).contiguous())


def _padded(x: Tensor, pad: tuple[int, ...]) -> Tensor:
    # Padding by nothing would be a copy.
    return torch.nn.functional.pad(x, pad) if any(pad) else x


def _needs_grad(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


@torch.library.custom_op("stereo_sashimi::recurrent", mutates_args=(), device_types="cpu")
def _forward(p: Tensor, u: Tensor, x: Tensor, keep: bool) -> tuple[Tensor, Tensor, Tensor]:
    """(y, last state, states before every SEGMENT-th step: none unless `keep`)."""
    from stereo_sashimi.ops.cpu import scan_loops

    y, end, snapshots = _room_for(u, x, keep)
    end.copy_(x)
    params, inputs, outputs, states, kept = (tensor.detach().numpy() for tensor in (p, u, y, end, snapshots))

    def run(row: int, group: int) -> None:
        ends = _from(inputs[row], group), states[row, group], _from(outputs[row], group)
        scan_loops.forward(params[group], *ends, u.shape[-1], kept[row, group])

    if u.shape[1]:
        for_each(run, list(product(range(len(u)), range(len(p)))))
    return y, end, snapshots


@torch.library.custom_op("stereo_sashimi::recurrent_backward", mutates_args=(), device_types="cpu")
def _backward(
    p: Tensor, u: Tensor, snapshots: Tensor, grad_y: Tensor, grad_end: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of (p, u, first state)."""
    from stereo_sashimi.ops.cpu import scan_loops

    grad_u, grad_x = torch.empty_like(u), grad_end.clone()
    grad_p = p.new_zeros(len(u), *p.shape)
    params, inputs, kept, of_y, of_u, of_x, of_p = (
        tensor.detach().numpy() for tensor in (p, u, snapshots, grad_y, grad_u, grad_x, grad_p)
    )

    def run(row: int, group: int) -> None:
        given = params[group], _from(inputs[row], group), kept[row, group], _from(of_y[row], group)
        wanted = of_x[row, group], _from(of_u[row], group), of_p[row, group]
        scan_loops.backward(*given, *wanted, u.shape[-1])

    if u.shape[1]:
        for_each(run, list(product(range(len(u)), range(len(p)))))
    return grad_p.sum(0), grad_u, grad_x


def _room_for(u: Tensor, x: Tensor, keep: bool) -> tuple[Tensor, Tensor, Tensor]:
    """What `_forward` returns, not filled in yet."""
    segments = -(-u.shape[1] // SEGMENT) if keep else 0
    return torch.empty_like(u), torch.empty_like(x), x.new_empty(*x.shape[:2], segments, x.shape[-1])


@_forward.register_fake
def _(p: Tensor, u: Tensor, x: Tensor, keep: bool) -> tuple[Tensor, Tensor, Tensor]:
    return _room_for(u, x, keep)


@_backward.register_fake
def _(p: Tensor, u: Tensor, snapshots: Tensor, grad_y: Tensor, grad_end: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(p), torch.empty_like(u), torch.empty_like(grad_end)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    p, u, _, _ = inputs
    ctx.save_for_backward(p, u, output[2])
    ctx.mark_non_differentiable(output[2])


def _gradients(ctx: Any, grad_y: Tensor, grad_end: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    p, u, snapshots = ctx.saved_tensors
    upper = grad_y.contiguous(), grad_end.contiguous()
    return *torch.ops.stereo_sashimi.recurrent_backward(p, u, snapshots, *upper), None


_forward.register_autograd(_gradients, setup_context=_save)


def _from(frames: Any, group: int) -> Any:
    """Frames (length, width) as a flat array that begins with the first channel of a group."""
    return frames.reshape(-1)[group * SIMD_WIDTH :]


def for_each(run: Callable[..., None], tasks: Sequence[tuple[Any, ...]]) -> None:
    """`run(*task)` once for every task, on as many threads as torch uses."""
    threads = min(torch.get_num_threads(), len(tasks))
    if threads == 1:
        for task in tasks:
            run(*task)
    else:
        list(_pool(os.getpid(), threads).map(lambda task: run(*task), tasks))


@lru_cache(maxsize=4)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    # A forked child has none of its parent's threads, so each process has its own.
    return ThreadPoolExecutor(threads, thread_name_prefix="loops")
