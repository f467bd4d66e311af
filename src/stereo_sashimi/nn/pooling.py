"""DownPool and UpPool: the change of rate between SaShiMi's levels, causal and streaming.

Feature order inside a group of `pool` frames is channel major: index h * pool + s for channel h at offset s
(SaShiMi, section 4.1, and the original implementation's checkpoints).
"""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from stereo_sashimi.nn.module import StatefulModule


class WeightNormLinear(nn.Module):
    """y = W x + bias with W = g v / |v|, |v| the norm of each row (Salimans and Kingma 2016, equation 2).

    `weight_g` (d_out, 1), `weight_v` (d_out, d_in), `bias` (d_out). It starts as an `nn.Linear` would.
    """

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__()
        start = nn.Linear(d_in, d_out)
        self.bias = start.bias
        self.weight_v = start.weight
        self.weight_g = nn.Parameter(torch.linalg.vector_norm(start.weight.detach(), dim=1, keepdim=True))

    @property
    def weight(self) -> Float[Tensor, "d_out d_in"]:
        """W."""
        return self.weight_v * (self.weight_g / torch.linalg.vector_norm(self.weight_v, dim=1, keepdim=True))

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        """Apply the map to the last axis."""
        return nn.functional.linear(x, self.weight, self.bias)

    def plain(self) -> nn.Linear:
        """The same map with W computed once."""
        # On the meta device nothing is initialised: freezing a model while it trains must draw no random numbers.
        linear = nn.Linear(self.weight_v.shape[1], self.weight_v.shape[0], device="meta")
        linear.weight, linear.bias = nn.Parameter(self.weight.detach()), self.bias
        return linear


class DownPool(StatefulModule):
    """Group `pool` frames and map them linearly, (batch, L, d_model) -> (batch, L // pool, d_out).

    The state is the remainder, 0 to pool - 1 frames that do not fill a group yet.
    """

    def __init__(self, d_model: int, d_out: int, pool: int, weight_norm: bool = False) -> None:
        super().__init__()
        self.d_model = d_model
        self.pool = pool
        self.linear = _linear(d_model * pool, d_out, weight_norm)

    def initial_state(self, batch_size: int) -> Float[Tensor, "batch 0 d_model"]:
        """No frame waits."""
        return self.linear.bias.new_zeros(batch_size, 0, self.d_model)

    def forward(
        self,
        x: Float[Tensor, "batch length d_model"],
        remainder: Float[Tensor, "batch waiting d_model"] | None = None,
    ) -> tuple[Float[Tensor, "batch groups d_out"], Float[Tensor, "batch waiting2 d_model"] | None]:
        """Emit every group that is complete. Without a state, frames after the last whole group are dropped."""
        if remainder is not None:
            x = torch.cat([remainder, x], dim=1)
        whole = x.shape[1] // self.pool * self.pool
        # The residual stream keeps its precision under autocast.
        y = self.linear(rearrange(x[:, :whole], "b (l p) h -> b l (h p)", p=self.pool)).to(x.dtype)
        return y, None if remainder is None else x[:, whole:].clone()


class UpPool(StatefulModule):
    """Map each low-rate frame linearly to `pool` frames, shifted right by one low-rate step.

    (batch, l, d_model) -> (batch, length, d_out). The shift keeps the network causal: a group is used only after
    it is complete, so the first `pool` output frames are zero (not the bias). The state is the 1 to `pool` frames
    that are computed but not used yet.
    """

    def __init__(self, d_model: int, d_out: int, pool: int, weight_norm: bool = False) -> None:
        super().__init__()
        self.d_out = d_out
        self.pool = pool
        self.linear = _linear(d_model, d_out * pool, weight_norm)

    def initial_state(self, batch_size: int) -> Float[Tensor, "batch pool d_out"]:
        """The first group: zeros."""
        return self.linear.bias.new_zeros(batch_size, self.pool, self.d_out)

    def forward(
        self,
        x: Float[Tensor, "batch low d_model"],
        pending: Float[Tensor, "batch waiting d_out"] | None = None,
        length: int | None = None,
    ) -> tuple[Float[Tensor, "batch length d_out"], Float[Tensor, "batch waiting2 d_out"] | None]:
        """Return the next `length` frames (default: `pool` for each low-rate frame given)."""
        length = x.shape[1] * self.pool if length is None else length
        y = rearrange(self.linear(x).to(x.dtype), "b l (h p) -> b (l p) h", p=self.pool)
        first = y.new_zeros(y.shape[0], self.pool, self.d_out) if pending is None else pending
        y = torch.cat([first.to(y.dtype), y], dim=1)
        if y.shape[1] < length:
            raise ValueError(
                f"UpPool has {y.shape[1]} frames for {length}: low-rate frames and state belong to other lengths."
            )
        return y[:, :length], None if pending is None else y[:, length:].clone()


def _linear(d_in: int, d_out: int, weight_norm: bool) -> nn.Linear | WeightNormLinear:
    return WeightNormLinear(d_in, d_out) if weight_norm else nn.Linear(d_in, d_out)
