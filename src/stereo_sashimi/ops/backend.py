"""Which kernel computation runs: one choice when a model is built; the run header prints it.

A named backend that cannot run raises. `auto` takes what costs less, layer by layer. On CPUs single clips are stepped
through, and of batches the DPLR kernels up to MAX_STEPPED frames (recurrent); other kernels, and all on GPUs, come from
two-level products (krylov): no measurement on a GPU says yet for which sizes `triton` would be faster. KeOps and Triton
are imported, and a CUDA device is looked for, only once one of them is named.
"""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from stereo_sashimi.ops.cpu import scan as recurrent
from stereo_sashimi.ops.discretize import Discrete
from stereo_sashimi.ops.errors import BackendError
from stereo_sashimi.ops.kernels import cauchy, keops, krylov, triton

KernelFunction = Callable[[Discrete, int, torch.dtype], Tensor]

# Frames of a kernel from which on products are cheaper (docs/performance.md).
MAX_STEPPED = 4096


def _auto(ssm: Discrete, length: int, dtype: torch.dtype) -> Tensor:
    steps = ssm.left is not None and _on_cpu(ssm) and length <= MAX_STEPPED
    return (recurrent if steps else krylov).kernel(ssm, length, dtype)


def _on_cpu(ssm: Discrete) -> bool:
    return ssm.delta.device.type == "cpu"


KERNELS: dict[str, KernelFunction] = {
    "auto": _auto,
    "recurrent": recurrent.kernel,
    "krylov": krylov.kernel,
    "reference": cauchy.kernel,
    "keops": keops.kernel,
    "triton": triton.kernel,
}


def resolve(backend: str) -> str:
    """Return the name of the kernel backend that will run, after trying it.

    - `backend`: a key of `KERNELS`.

    Raises ValueError for an unknown name, BackendError for a backend that does not run here.
    """
    if backend not in KERNELS:
        raise ValueError(f"backend must be one of {', '.join(sorted(KERNELS))}; got {backend!r}.")
    if backend == "keops":
        _probe_keops()
    if backend == "triton":
        _probe_triton()
    return backend


def describe(backend: str) -> str:
    """What a run header says about a backend."""
    if backend == "auto":
        return f"auto (on a CPU recurrent for single clips and up to {MAX_STEPPED:,} frames, else krylov)"
    return backend


def steps(backend: str, ssm: Discrete, u: Tensor) -> bool:
    """Whether a segment u (batch, length, h) is stepped through, rather than convolved with a kernel.

    A kernel is made once for all clips of a batch, stepping is done for each.
    """
    if backend == "recurrent":
        return True
    return backend == "auto" and _on_cpu(ssm) and len(u) == 1


@cache
def _probe_keops() -> None:
    try:
        value = keops.keops_sum(*_one_term("cpu"))
    except Exception as error:  # KeOps fails in many ways: not installed, no C++ compiler, a broken cache.
        raise BackendError(
            f"backend=keops does not run here ({type(error).__name__}: {error}). "
            "Install it with `pip install 'stereo-sashimi[keops]'` and a C++ compiler, or use backend=auto."
        ) from error
    _refuse_wrong("keops", value)


@cache
def _probe_triton() -> None:
    try:
        interpreted = triton.interpreted()
    except (ImportError, OSError) as error:
        raise BackendError(
            f"backend=triton needs the package triton, which does not import ({type(error).__name__}: {error}). "
            "CUDA builds of torch for Linux bring it along; else `pip install triton`, or use backend=auto."
        ) from error
    if not (interpreted or torch.cuda.is_available()):
        raise BackendError(
            "backend=triton needs a CUDA device, and torch sees none. Use backend=auto. "
            "(TRITON_INTERPRET=1 in the environment runs it without one, slowly.)"
        )
    try:
        value = triton.triton_sum(*_one_term("cpu" if interpreted else "cuda"))
    except Exception as error:  # No C compiler, a driver too old for this Triton, a GPU it does not know, ..
        raise BackendError(
            f"backend=triton does not run here ({type(error).__name__}: {error}). "
            "It needs a C compiler and a driver that fits torch's CUDA; or use backend=auto."
        ) from error
    _refuse_wrong("triton", value)


def _one_term(device: str) -> tuple[Tensor, Tensor, Tensor]:
    """v = 1, a = 1/2, w = 1: the sum is 2 + 2."""
    one = torch.ones(1, 1, 1, dtype=torch.complex128, device=device)
    return one, one[0] / 2, one[0, 0]


def _refuse_wrong(name: str, value: Tensor) -> None:
    if not torch.allclose(value.cpu(), torch.full_like(value, 4.0, device="cpu")):
        raise BackendError(f"backend={name} computes wrong sums here (got {value}); use backend=auto.")
