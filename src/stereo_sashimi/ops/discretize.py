"""Discretisation of one S4 layer: from continuous parameters to the `Discrete` that everything else starts from.

Legend (h = d_model channels, m = d_state/2 conjugate-pair representatives; Gu et al. 2022, "S4"):
  Lambda  (h, m)  continuous eigenvalues, Re < 0      P, B, C  (h, m)  rank-1 factor, input, output
  dt      (h,)    step size                           D        (h,)    skip (kept by nn/s4.py)
  x' = A_bar x + B_bar u,   y = 2 Re(C x')            with A = diag(Lambda) - P P^*
Only one of each conjugate pair is stored; "full" inner products <a, b> over both are 2 Re(sum a b).
A_bar is again diagonal plus rank one:
  A_bar x = a * x + left * 2 Re(sum right * x),   a = 1 + delta
Next to the unit circle delta keeps all the digits that a would lose.
The recurrence and whole segments are in `s4_response.py`, convolution kernels in `kernels/`.
"""

from typing import NamedTuple

import torch
from jaxtyping import Complex, Float
from torch import Tensor

Modes = Complex[Tensor, "h m"]


class Discrete(NamedTuple):
    """A discretised SSM. `delta`, `b`, `c` are complex (channels, modes); `left`, `right` too, or None if diagonal."""

    delta: Tensor
    b: Tensor
    c: Tensor
    left: Tensor | None = None
    right: Tensor | None = None

    @property
    def a(self) -> Tensor:
        """The diagonal of A_bar, without its rank-1 part."""
        return 1 + self.delta

    def to(self, dtype: torch.dtype) -> "Discrete":
        """In another complex precision."""
        left = None if self.left is None else self.left.to(dtype)
        right = None if self.right is None else self.right.to(dtype)
        return Discrete(self.delta.to(dtype), self.b.to(dtype), self.c.to(dtype), left, right)


def bilinear(lam: Modes, p: Modes | None, b: Modes, c: Modes, dt: Float[Tensor, " h"]) -> Discrete:
    """Bilinear (Tustin) discretisation, A_bar = (I - dt/2 A)^-1 (I + dt/2 A), B_bar = dt (I - dt/2 A)^-1 B.

    S4 appendix C.3. With d = 1/(2/dt - Lambda) the Woodbury identity gives
    (2/dt - A)^-1 = d - d P P^* d / s,  s = 1 + <conj(P), d P>,  and A_bar = d (2/dt + Lambda) - (4/dt/s) (d P)(P^* d).
    `p = None` is the diagonal case (S4D).
    """
    two_over_dt = (2 / dt).unsqueeze(-1)
    d = 1 / (two_over_dt - lam)
    delta = 2 * lam * d
    if p is None:
        return Discrete(delta=delta, b=2 * d * b, c=c)
    dp = d * p
    right = d * p.conj()
    s = 1 + 2 * (p.conj() * dp).real.sum(-1, keepdim=True)
    b_bar = 2 * (d * b - dp * (2 * (right * b).real.sum(-1, keepdim=True) / s))
    return Discrete(delta=delta, b=b_bar, c=c, left=dp * (-2 * two_over_dt / s), right=right)


def zero_order_hold(lam: Modes, b: Modes, c: Modes, dt: Float[Tensor, " h"]) -> Discrete:
    """Zero-order hold of a diagonal SSM, A_bar = exp(dt Lambda), B_bar = (A_bar - 1)/Lambda B (S4D, eq. 3)."""
    scaled = lam * dt.unsqueeze(-1)
    delta = torch.expm1(scaled)
    return Discrete(delta=delta, b=delta / lam * b, c=c)
