"""Which kernel computation runs: one choice when a model is built; the run header prints it.

`auto` takes the two-level Krylov products, which run everywhere. A named backend that cannot run raises.
"""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from stereo_sashimi.ops.discretize import Discrete
from stereo_sashimi.ops.kernels import cauchy, keops, krylov


class BackendError(RuntimeError):
    """A backend that was named but does not run on this machine."""


KernelFunction = Callable[[Discrete, int], Tensor]

KERNELS: dict[str, KernelFunction] = {
    "krylov": krylov.kernel,
    "reference": cauchy.kernel,
    "keops": keops.kernel,
}


def resolve(backend: str) -> str:
    """Return the name of the kernel backend that will run, after trying it.

    - `backend`: "auto", "reference", "krylov" or "keops".

    Raises ValueError for an unknown name, BackendError for a backend that does not run here.
    """
    if backend == "auto":
        return "krylov"
    if backend not in KERNELS:
        raise ValueError(f"backend must be one of auto, {', '.join(sorted(KERNELS))}; got {backend!r}.")
    if backend == "keops":
        _probe_keops()
    return backend


@cache
def _probe_keops() -> None:
    try:
        value = keops.keops_sum(
            torch.ones(1, 1, 1, dtype=torch.complex128),
            torch.full((1, 1), 0.5, dtype=torch.complex128),
            torch.ones(1, dtype=torch.complex128),
        )
    except Exception as error:  # KeOps fails in many ways: not installed, no C++ compiler, a broken cache.
        raise BackendError(
            f"backend=keops does not run here ({type(error).__name__}: {error}). "
            "Install it with `pip install 'stereo-sashimi[keops]'` and a C++ compiler, or use backend=auto."
        ) from error
    if not torch.allclose(value.real, torch.tensor(4.0, dtype=torch.float64)):
        raise BackendError(f"backend=keops computes wrong sums here (got {value}); use backend=auto.")
