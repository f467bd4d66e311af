"""WaveformTable: rows for all codes made from a few learned ones, for models that shall stay small.

At 16 bits a table with a row of its own for every code has 65,536 rows a channel, more than the rest of a small model,
and most of them are rarely trained. Here a row is a learned combination of fixed features of the code's amplitude.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

# Loud codes are told apart down to waves of this many codes a cycle; quiet ones by the ramps to the last bit.
SHORTEST_WAVE = 64


class WaveformTable(nn.Module):
    """`rows()[code] = features[code] @ weight`; `weight` is (n_features, d_model), 54 features for 16 bits.

    Features are piecewise linear in the amplitude, with slopes that are powers of two: so every one is exact, and
    equal on all machines. See `waveform_features`.
    """

    features: Tensor

    def __init__(self, n_levels: int, d_model: int) -> None:
        super().__init__()
        self.register_buffer("features", waveform_features(n_levels), persistent=False)
        # Rows of variance about 1, as those of a free table.
        self.weight = nn.Parameter(torch.randn(self.features.shape[1], d_model) / math.sqrt(self.features.shape[1] / 2))

    def forward(self, codes: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch d_model"]:
        """Rows of `codes`."""
        return self.features[codes] @ self.weight

    @torch.no_grad()
    def rows(self) -> Float[Tensor, "n_levels d_model"]:
        """The whole table, to be looked up in: sums in float64 and in one order, so its bits depend on nothing else."""
        total = torch.zeros(len(self.features), self.weight.shape[1], dtype=torch.float64, device=self.weight.device)
        for feature, weight in zip(self.features.T.double(), self.weight.double(), strict=True):
            total += feature.unsqueeze(-1) * weight
        return total.to(self.weight.dtype)


def waveform_features(n_levels: int) -> Float[Tensor, "n_levels n_features"]:
    """Fixed features in [-1, 1] of every code, whose amplitude is x = code / (n_levels / 2) - 1.

    For each gain g = 1, 2, 4, .. n_levels / 2: the ramp g x cut off at -1 and 1 (sign and size), and the same of |x|,
    shifted to [-1, 1] (loudness). Triangle waves in x of wavelengths 2, 1, 1/2, .. down to `SHORTEST_WAVE` codes, two
    a quarter of a cycle apart.
    """
    x = torch.arange(n_levels, dtype=torch.float32) / (n_levels / 2) - 1
    gains = [2.0**i for i in range(n_levels.bit_length() - 1)]
    columns = [(gain * x).clamp(-1, 1) for gain in gains]
    columns += [2 * (gain * x.abs()).clamp(max=1) - 1 for gain in gains]
    cycles = 0.5
    while n_levels / (2 * cycles) >= SHORTEST_WAVE:
        columns += [_triangle(cycles * x), _triangle(cycles * x + 0.25)]
        cycles *= 2
    return torch.stack(columns, dim=-1)


def _triangle(phase: Float[Tensor, " n_levels"]) -> Float[Tensor, " n_levels"]:
    """A wave between -1 and 1 of period 1 that is 1 at 0 and -1 at 1/2."""
    return 4 * (phase - phase.round()).abs().neg() + 1
