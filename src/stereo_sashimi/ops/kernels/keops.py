"""The Cauchy sums of `cauchy.py` by KeOps' online reduction (pykeops, an optional dependency).

pykeops is imported only when this backend is chosen: its import probes CUDA and its first use compiles.
"""

from functools import cache

import torch
from jaxtyping import Complex
from torch import Tensor

from stereo_sashimi.ops.backend_error import BackendError
from stereo_sashimi.ops.kernels import cauchy


def keops_sum(
    v: Complex[Tensor, "rows h m"], a: Complex[Tensor, "h m"], w: Complex[Tensor, " frequencies"]
) -> Complex[Tensor, "rows h frequencies"]:
    """sum_n v_n/(1 - w a_n) + conj(v_n)/(1 - w conj(a_n)), without storing the Cauchy matrix.

    As a Cauchy product: with z = 1/w the terms are z v_n/(z - a_n).
    """
    from pykeops.torch import Genred

    v, a = torch.cat([v, v.conj()], dim=-1), torch.cat([a, a.conj()], dim=-1)
    z = 1 / w
    reduction = Genred("ComplexDivide(v, z - a)", ["v = Vj(2)", "a = Vj(2)", "z = Vi(2)"], reduction_op="Sum", axis=1)
    shape = v.shape[:2]
    v, a, z_rows = v.flatten(0, 1), a.expand(*shape, -1).flatten(0, 1), z.expand(shape.numel(), -1)
    parts = [torch.view_as_real(part.resolve_conj().contiguous()) for part in (v, a, z_rows)]
    sums = torch.view_as_complex(reduction(*parts).contiguous())
    return z * sums.unflatten(0, shape)


@cache
def probe() -> None:
    """Raise BackendError unless KeOps runs here."""
    try:
        value = keops_sum(*cauchy.one_term("cpu"))
    except Exception as error:  # KeOps fails in many ways: not installed, no C++ compiler, a broken cache.
        raise BackendError(
            f"backend=keops does not run here ({type(error).__name__}: {error}). "
            "Install it with `pip install 'stereo-sashimi[keops]'` and a C++ compiler, or use backend=auto."
        ) from error
    cauchy.refuse_wrong("keops", value)
