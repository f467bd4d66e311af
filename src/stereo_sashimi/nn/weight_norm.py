"""WeightNormLinear: the linear map of pools in the original's SaShiMi configurations."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


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
