"""The S4 layer: state space model, GELU, gated output. Called with a state it continues, without one it starts.

Parameters and discretisation are in `ssm.py`, the convolution kernels in `ops/kernels/`.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn

from stereo_sashimi.nn.module import StatefulModule
from stereo_sashimi.nn.ssm import DPLR, SSM, Diagonal
from stereo_sashimi.ops.s4_response import resolve, respond


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
        _check_common(self)

    def build(self, d_model: int) -> DPLR:
        """The state space model for `d_model` channels."""
        return DPLR(d_model, self.d_state, self.n_ssm, self.dt_min, self.dt_max, self.dt_transform)


@dataclass(frozen=True)
class S4DConfig:
    """The diagonal layer (Gu et al. 2022, S4D); fields as in `S4Config`.

    - `init`: "legs", "lin" or "inv". `discretization`: "zoh" or "bilinear".
    """

    kind: ClassVar[str] = "s4d"
    d_state: int = 64
    n_ssm: int | None = 1
    dt_min: float = 0.001
    dt_max: float = 0.1
    dt_transform: str = "softplus"
    init: str = "lin"
    discretization: str = "zoh"

    def __post_init__(self) -> None:
        _check_common(self)
        if self.init not in ("legs", "lin", "inv"):
            raise ValueError(f"model.layer.init must be legs, lin or inv; got {self.init!r}.")
        if self.discretization not in ("zoh", "bilinear"):
            raise ValueError(f"model.layer.discretization must be zoh or bilinear; got {self.discretization!r}.")

    def build(self, d_model: int) -> Diagonal:
        """The state space model for `d_model` channels."""
        return Diagonal(
            d_model,
            self.d_state,
            self.n_ssm,
            self.dt_min,
            self.dt_max,
            self.dt_transform,
            self.init,
            self.discretization,
        )


LayerConfig = S4Config | S4DConfig


class S4(StatefulModule):
    """y = GLU(W gelu(conv(u, K) + D u)): the layer inside a SaShiMi residual block.

    - `d_model`: channels. `config`: `S4Config` or `S4DConfig`. `dropout`: on the convolution's output and after GELU.
    - `backend`: how the response is computed, see `ops/s4_response.py`. It changes no result beyond round-off.
    """

    def __init__(self, d_model: int, config: LayerConfig, dropout: float = 0.0, backend: str = "auto") -> None:
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


def _check_common(config: LayerConfig) -> None:
    if not 0 < config.dt_min <= config.dt_max:
        raise ValueError(f"model.layer needs 0 < dt_min <= dt_max; got {config.dt_min} and {config.dt_max}.")
    if config.dt_transform not in ("softplus", "exp"):
        raise ValueError(f"model.layer.dt_transform must be softplus or exp; got {config.dt_transform!r}.")
    if config.d_state < 2 or config.d_state % 2:
        raise ValueError(f"model.layer.d_state must be even and at least 2; got {config.d_state}.")
    if config.n_ssm is not None and config.n_ssm < 1:
        raise ValueError(f"model.layer.n_ssm must be at least 1, or null for one a channel; got {config.n_ssm}.")
