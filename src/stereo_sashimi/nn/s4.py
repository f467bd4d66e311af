"""The S4 layer: state space model, GELU, gated output. Called with a state it continues, without one it starts.

The state space models of S4 (DPLR) and S4D (Diagonal) come first, then their layer; the mathematics is in `ops/`.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn

from stereo_sashimi.nn.module import StatefulModule
from stereo_sashimi.ops import hippo
from stereo_sashimi.ops.discretize import Discrete, bilinear, zero_order_hold
from stereo_sashimi.ops.s4_response import resolve, respond

# Smallest dt, -Re(Lambda) and -Im(Lambda) that the log parametrisations start from.
FLOOR = 1e-4


class SSM(nn.Module, ABC):
    """A state space model for `d_model` channels with `n_modes` = d_state / 2 conjugate pairs each."""

    d_model: int
    n_modes: int

    @abstractmethod
    def discretize(self) -> Discrete:
        """The one discretisation that kernel, step and segments use, in float64.

        A rounding of A_bar grows with every power of it, and these tensors are small.
        """


class SSMParameters(SSM):
    """Parameters that S4 and S4D share.

    `n_ssm` independent copies of (Lambda, B) serve `d_model` channels: copy j serves channels h with h mod n_ssm = j.
    `inv_dt` (d_model,), `A_real`, `A_imag` (n_ssm, m), `B` (n_ssm, m, 2), `C` (d_model, m, 2); complex numbers have a
    last axis (re, im). Re Lambda = -exp(A_real) < 0, Im Lambda = -A_imag, dt = softplus(inv_dt) or exp(inv_dt).
    `C` is the plain output matrix, for every length (docs/adr/0003).
    """

    C_remainder: Tensor | None

    def __init__(self, d_model: int, lam: Tensor, b: Tensor, config: "S4Config") -> None:
        super().__init__()
        n_ssm = d_model if config.n_ssm is None else config.n_ssm
        if n_ssm < 1 or d_model % n_ssm:
            raise ValueError(f"n_ssm must divide the width {d_model} of every level; got {n_ssm}.")
        self.d_model, self.n_ssm, self.n_modes = d_model, n_ssm, lam.shape[0]
        self.dt_transform = config.dt_transform
        dtype = torch.get_default_dtype()

        def copies(x: Tensor) -> nn.Parameter:
            return nn.Parameter(x.to(dtype).expand(n_ssm, *x.shape).clone())

        log_dt = torch.empty(d_model).uniform_(math.log(config.dt_min), math.log(config.dt_max))
        dt = log_dt.exp().clamp_min(FLOOR)
        self.inv_dt = nn.Parameter(log_dt if self.dt_transform == "exp" else torch.log(torch.expm1(dt)))
        self.A_real = copies((-lam.real).clamp_min(FLOOR).log())
        self.A_imag = copies((-lam.imag).clamp_min(FLOOR))
        self.B = copies(torch.view_as_real(b))
        self.C = nn.Parameter(torch.randn(d_model, self.n_modes, 2) * math.sqrt(0.5))
        # Digits of C below its precision, where interop computed it in float64; without effect until `.double()`.
        self.register_buffer("C_remainder", None, persistent=False)

    def dt(self) -> Tensor:
        """Step sizes (d_model,), float64, in steps of the level's own rate."""
        inv_dt = self.inv_dt.double()
        return inv_dt.exp() if self.dt_transform == "exp" else nn.functional.softplus(inv_dt)

    def c(self) -> Tensor:
        """C, complex128 (d_model, m)."""
        c = self.C if self.C_remainder is None else self.C + self.C_remainder.to(self.C.dtype)
        return torch.view_as_complex(c.double())

    def lam(self) -> Tensor:
        """Lambda, complex128 (d_model, m)."""
        return self.tile(torch.complex(-self.A_real.double().exp(), -self.A_imag.double()))

    def b(self) -> Tensor:
        """B, complex128 (d_model, m)."""
        return self.tile(torch.view_as_complex(self.B.double()))

    def tile(self, x: Tensor) -> Tensor:
        """(n_ssm, m) -> (d_model, m): channel h gets copy h mod n_ssm."""
        return x.repeat(self.d_model // self.n_ssm, 1)


class DPLR(SSMParameters):
    """S4: A = diag(Lambda) - P P^*, bilinear discretisation, HiPPO-LegS initialisation."""

    def __init__(self, d_model: int, config: "S4Config") -> None:
        lam, p, b = hippo.legs_dplr(config.d_state)
        super().__init__(d_model, lam, b, config)
        p_real = torch.view_as_real(p).to(torch.get_default_dtype())
        self.P = nn.Parameter(p_real.expand(self.n_ssm, *p_real.shape).clone())

    def discretize(self) -> Discrete:
        """The one discretisation that kernel, step and segments use."""
        p = self.tile(torch.view_as_complex(self.P.double()))
        return bilinear(self.lam(), p, self.b(), self.c(), self.dt())


class Diagonal(SSMParameters):
    """S4D: A = diag(Lambda), with the initialisations and discretisations of `S4DConfig`."""

    def __init__(self, d_model: int, config: "S4DConfig") -> None:
        if config.init == "legs":
            lam, _, b = hippo.legs_dplr(config.d_state)
        else:
            lam = {"lin": hippo.s4d_lin, "inv": hippo.s4d_inv}[config.init](config.d_state)
            b = torch.ones_like(lam)
        super().__init__(d_model, lam, b, config)
        self.discretization = config.discretization

    def discretize(self) -> Discrete:
        """The one discretisation that kernel, step and segments use."""
        if self.discretization == "zoh":
            return zero_order_hold(self.lam(), self.b(), self.c(), self.dt())
        return bilinear(self.lam(), None, self.b(), self.c(), self.dt())


class FrozenSSM(SSM):
    """A discretisation made once from parameters that will not change any more."""

    def __init__(self, ssm: Discrete) -> None:
        super().__init__()
        self.d_model, self.n_modes = ssm.delta.shape
        self.fields = ssm._fields
        for name, value in ssm._asdict().items():
            self.register_buffer(name, value, persistent=False)

    def discretize(self) -> Discrete:
        """Return what was frozen."""
        return Discrete(**{name: getattr(self, name) for name in self.fields})


@dataclass(frozen=True)
class S4Config:
    """The DPLR layer of the S4 paper.

    - `d_state`: full state size, even. `n_ssm`: independent copies of (A, B, P), null for one a channel.
    - `dt_min`, `dt_max`: range of the initial step sizes. `dt_transform`: "softplus" or "exp".
    """

    kind: ClassVar[str] = "s4"
    d_state: int = 64
    n_ssm: int | None = 1
    dt_min: float = 0.001
    dt_max: float = 0.1
    dt_transform: str = "softplus"

    def __post_init__(self) -> None:
        if not 0 < self.dt_min <= self.dt_max:
            raise ValueError(f"model.layer needs 0 < dt_min <= dt_max; got {self.dt_min} and {self.dt_max}.")
        if self.dt_transform not in ("softplus", "exp"):
            raise ValueError(f"model.layer.dt_transform must be softplus or exp; got {self.dt_transform!r}.")
        if self.d_state < 2 or self.d_state % 2:
            raise ValueError(
                f"model.layer.d_state must be even and at least 2 (conjugate pairs of modes); got {self.d_state}."
            )
        if self.n_ssm is not None and self.n_ssm < 1:
            raise ValueError(f"model.layer.n_ssm must be at least 1, or null for one a channel; got {self.n_ssm}.")

    def build(self, d_model: int) -> SSMParameters:
        """The state space model for `d_model` channels."""
        return DPLR(d_model, self)


@dataclass(frozen=True)
class S4DConfig(S4Config):
    """The diagonal layer (Gu et al. 2022, S4D).

    - `init`: "legs", "lin" or "inv". `discretization`: "zoh" or "bilinear".
    """

    kind: ClassVar[str] = "s4d"
    init: str = "lin"
    discretization: str = "zoh"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.init not in ("legs", "lin", "inv"):
            raise ValueError(f"model.layer.init must be legs, lin or inv; got {self.init!r}.")
        if self.discretization not in ("zoh", "bilinear"):
            raise ValueError(f"model.layer.discretization must be zoh or bilinear; got {self.discretization!r}.")

    def build(self, d_model: int) -> SSMParameters:
        """The state space model for `d_model` channels."""
        return Diagonal(d_model, self)


class S4(StatefulModule):
    """y = GLU(W gelu(conv(u, K) + D u)): the layer inside a SaShiMi residual block.

    - `d_model`: channels. `config`: of S4 or S4D. `dropout`: on the convolution's output and after GELU.
    - `backend`: how the response is computed, see `ops/s4_response.py`. It changes no result beyond round-off.
    """

    def __init__(self, d_model: int, config: S4Config, dropout: float = 0.0, backend: str = "auto") -> None:
        super().__init__()
        self.ssm: SSM = config.build(d_model)
        self.D = nn.Parameter(torch.randn(d_model))
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(d_model, 2 * d_model)
        self.backend = resolve(backend)

    def initial_state(self, batch_size: int) -> Complex[Tensor, "batch d_model m"]:
        """A state at rest."""
        shape = (batch_size, self.ssm.d_model, self.ssm.n_modes)
        return torch.zeros(shape, dtype=self.D.dtype.to_complex(), device=self.D.device)

    def forward(
        self,
        u: Float[Tensor, "batch length d_model"],
        state: Complex[Tensor, "batch d_model m"] | None = None,
    ) -> tuple[Float[Tensor, "batch length d_model"], Complex[Tensor, "batch d_model m"] | None]:
        """`None` in gives `None` out (a whole sequence from the start); a state in gives the next state out."""
        # The recurrence needs float32 whatever the precision around it: its poles lie next to the unit circle.
        with torch.autocast(u.device.type, enabled=False):
            x = u.to(self.D.dtype)
            y, state = respond(self.backend, self.ssm.discretize(), x, state)
            y = torch.addcmul(y, self.D, x)
        y = self.dropout(nn.functional.gelu(self.dropout(y)))
        return nn.functional.glu(self.output(y), dim=-1), state
