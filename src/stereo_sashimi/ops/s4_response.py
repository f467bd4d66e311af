"""The response of one S4 layer to a segment: `respond`, the one place that decides how it is computed.

`step` and `recurrence` are the definition to read, with the symbols of `discretize.py`. What equals them and is faster:
a compiled loop over the frames (`cpu/scan.py`), or a convolution kernel (`kernels/`) with an FFT (`fftconv.py`).

A named backend that cannot run raises. `auto` takes what costs less, layer by layer: on CPUs single clips are stepped
through, and so are the impulses that give the kernels of DPLR layers up to MAX_STEPPED frames; other kernels, and all
on GPUs, come from two-level products (`krylov`), as no measurement on a GPU says yet for which sizes `triton` would be
faster. KeOps and Triton are imported, and a CUDA device is looked for, only once one of them is named.
"""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from stereo_sashimi.ops.backend_error import BackendError as BackendError
from stereo_sashimi.ops.cpu import scan
from stereo_sashimi.ops.discretize import Discrete
from stereo_sashimi.ops.fftconv import causal_convolution
from stereo_sashimi.ops.kernels import cauchy, keops, krylov, triton

# Frames of a kernel from which on products are cheaper than steps (docs/performance.md).
MAX_STEPPED = 4096


State = Complex[Tensor, "batch h m"]


def _auto(ssm: Discrete, length: int, dtype: torch.dtype) -> Tensor:
    stepped = ssm.left is not None and ssm.delta.device.type == "cpu" and length <= MAX_STEPPED
    return (scan if stepped else krylov).kernel(ssm, length, dtype)


# The convolution kernel K_l = 2 Re(C A_bar^l B_bar), l < length, of an SSM: (h, length) in the given precision.
KERNELS: dict[str, Callable[[Discrete, int, torch.dtype], Tensor]] = {
    "auto": _auto,
    "recurrent": scan.kernel,
    "krylov": krylov.kernel,
    "reference": cauchy.kernel,
    "keops": partial(cauchy.kernel, cauchy_sum=keops.keops_sum),
    "triton": partial(cauchy.kernel, cauchy_sum=triton.triton_sum),
}


def resolve(backend: str) -> str:
    """Return the name of the backend that will run, after trying it.

    Raises:
        ValueError: not a key of `KERNELS`.
        BackendError: it does not run here.
    """
    if backend not in KERNELS:
        raise ValueError(f"backend must be one of {', '.join(sorted(KERNELS))}; got {backend!r}.")
    if backend == "keops":
        keops.probe()
    if backend == "triton":
        triton.probe()
    return backend


def describe(backend: str) -> str:
    """What a run header says about a backend."""
    if backend == "auto":
        return f"auto (on a CPU recurrent for single clips and up to {MAX_STEPPED:,} frames, else krylov)"
    return backend


def respond(
    backend: str, ssm: Discrete, u: Float[Tensor, "batch length h"], state: State | None
) -> tuple[Float[Tensor, "batch length h"], State | None]:
    """The output for a segment from `state`, or from rest; `None` in gives `None` out.

    Args:
        backend: what `resolve` returned.
        ssm: best in float64 (`SSM.discretize`).
    """
    batch, length, _ = u.shape
    # A kernel is made once for all clips of a batch, stepping is done for each.
    stepped = backend == "recurrent" or (backend == "auto" and batch == 1 and ssm.delta.device.type == "cpu")
    if stepped and length > 1:
        y, after = scan.scan(ssm, u, state)
        return y, None if state is None else after
    if state is None:
        return causal_convolution(u.mT, KERNELS[backend](ssm, length, u.dtype)).mT, None
    if length == 0:
        return u, state
    if length == 1:
        y, after = step(ssm.to(state.dtype), u.squeeze(1), state)
        return y.unsqueeze(1), after
    y, after = advance(ssm, KERNELS[backend](ssm, length, u.dtype), u.mT, state)
    return y.mT, after


def step(ssm: Discrete, u: Float[Tensor, "batch h"], state: State) -> tuple[Float[Tensor, "batch h"], State]:
    """One step of the recurrence, O(d_state) a channel: returns the output (it reads the new state) and the state."""
    new = ssm.a * state + ssm.b * u.unsqueeze(-1)
    if ssm.left is not None and ssm.right is not None:
        new = new + ssm.left * (2 * (ssm.right * state).real.sum(-1, keepdim=True))
    return 2 * (ssm.c * new).real.sum(-1), new


def recurrence(
    ssm: Discrete, u: Float[Tensor, "batch h length"], state: State
) -> tuple[Float[Tensor, "batch h length"], State]:
    """Step through a segment: the definition that `advance` and every kernel are tested against."""
    outputs = []
    for u_t in u.unbind(-1):
        y_t, state = step(ssm, u_t, state)
        outputs.append(y_t)
    return (torch.stack(outputs, dim=-1) if outputs else torch.zeros_like(u)), state


def advance(
    ssm: Discrete, kernel: Float[Tensor, "h length"], u: Float[Tensor, "batch h length"], state: State
) -> tuple[Float[Tensor, "batch h length"], State]:
    """A segment at once: convolution plus the free response of the carried state; also returns the next state."""
    response, state_after = krylov.carry(ssm, u, state)
    return causal_convolution(u, kernel) + response, state_after
