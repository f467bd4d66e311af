"""MultiChannelEmbedding: codes of one or more channels -> features, one table per channel.

A table has a row for every code, or makes them from a few (`WaveformTable`). The other end of the model, features
-> distributions of codes, is in `heads/head.py`.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from stereo_sashimi.schema import check_choice, check_count

MERGES = ("concat", "sum", "mix", "none")
INITS = ("normal", "waveform")
TABLES = ("free", "waveform")


@dataclass(frozen=True)
class EmbeddingConfig:
    """How codes become features.

    - `d_model`: features of one channel, at least 1.
    - `merge`: `"concat"` gives d_input * d_model features in channel order; `"sum"` gives d_model; `"mix"` puts a
      learned 1x1 convolution over all channels behind concat, and gives d_model. With `"none"` channels are not
      merged: the language model runs each as a sequence of its own (`separate`).
    - `init`: `"normal"` draws N(0, 1); `"waveform"` makes rows that are smooth in the amplitude.
    - `table`: `"free"` learns a row for every code; `"waveform"` learns about 50 from which all rows are made, which
      makes 16-bit models small (`init` has no meaning then and must be "normal").

    Raises ValueError, naming the field, for any other value.
    """

    kind: ClassVar[str] = "embedding"
    d_model: int = 64
    merge: str = "concat"
    init: str = "normal"
    table: str = "free"

    def __post_init__(self) -> None:
        check_count(self.d_model, "encoder.d_model")
        check_choice(self.merge, "encoder.merge", MERGES)
        check_choice(self.init, "encoder.init", INITS)
        check_choice(self.table, "encoder.table", TABLES)
        if self.table == "waveform" and self.init != "normal":
            raise ValueError(
                f"encoder.init={self.init} fills free rows, and encoder.table=waveform has none. Use "
                "encoder.init=normal."
            )

    @property
    def separate(self) -> bool:
        """Whether each channel is a sequence of its own, all with the same parameters."""
        return self.merge == "none"

    def build(self, d_input: int, n_levels: int) -> "MultiChannelEmbedding":
        """Make the module for `d_input` channels of `n_levels` codes."""
        return MultiChannelEmbedding(d_input, n_levels, self)


class MultiChannelEmbedding(nn.Module):
    """One table of (n_levels, d_model) per channel; `d_output` is the number of features it gives.

    `merge="none"` is for one channel: raises ValueError where d_input is more.
    """

    def __init__(self, d_input: int, n_levels: int, config: EmbeddingConfig) -> None:
        super().__init__()
        d_model, merge = config.d_model, config.merge
        if d_input < 1:
            raise ValueError(f"MultiChannelEmbedding needs d_input of at least 1 channel; got {d_input}.")
        if merge == "none" and d_input != 1:
            raise ValueError(f"An embedding with merge='none' takes one channel at a time; got d_input={d_input}.")
        self.d_input, self.n_levels, self.d_model, self.merge = d_input, n_levels, d_model, merge
        self.d_output = d_input * d_model if merge == "concat" else d_model
        kind = WaveformTable if config.table == "waveform" else nn.Embedding
        self.tables = nn.ModuleList(kind(n_levels, d_model) for _ in range(d_input))
        if config.init == "waveform":
            for rows in self.tables.parameters():
                waveform_rows_(rows)
        self.mix = nn.Linear(d_input * d_model, d_model) if merge == "mix" else nn.Identity()

    def forward(self, codes: Int[Tensor, "batch length channels"]) -> Float[Tensor, "batch length d_output"]:
        """Look up every channel in its own table and merge; raises ValueError for a wrong number of channels."""
        if codes.shape[-1] != self.d_input:
            raise ValueError(
                f"MultiChannelEmbedding was built for {self.d_input} channels; got codes with {codes.shape[-1]}, "
                f"shape {tuple(codes.shape)}. Match `dataset` (is_stereo) to the model."
            )
        rows = [table(codes[..., channel]) for channel, table in enumerate(self.tables)]
        if self.merge == "sum":
            return torch.stack(rows).sum(0)
        features: Tensor = self.mix(torch.cat(rows, dim=-1))
        return features


@torch.no_grad()
def waveform_rows_(weight: Float[Tensor, "n_levels d_model"]) -> Float[Tensor, "n_levels d_model"]:
    """Fill `weight` with random rows that vary smoothly with the amplitude of the code; returns it.

    Of 65,536 codes a training set shows the loud ones rarely or never. With independent rows such a code is noise to
    the network; here it resembles its neighbours from the start. Every column is a random combination (orthogonal,
    from torch's generator) of fixed features of the amplitude, with mean 0 and variance 1 when magnitudes are
    log-uniform, which gives quiet and loud codes equal say. Training moves the rows freely.
    """
    n_levels, d_model = weight.shape
    lsb = torch.arange(n_levels, dtype=torch.float64, device=weight.device) - n_levels / 2
    x = lsb.unsqueeze(-1) / (n_levels / 2)
    # Gains up to 1 for one code; waves from half a cycle over the range to 2 sqrt(n_levels) codes a cycle, so that
    # the gaps between the loud codes that were seen are bridged.
    gains = _log_spaced(0.5, n_levels / 2, 12, x)
    wavelengths = _log_spaced(4.0, 4.0 / math.sqrt(n_levels), 16, x)
    log_magnitude = torch.sign(x) * torch.log1p(lsb.abs()).unsqueeze(-1) / math.log1p(n_levels / 2)
    phase = 2 * math.pi * x / wavelengths
    features = torch.cat((torch.tanh(gains * x), log_magnitude, torch.sin(phase), torch.cos(phase)), dim=-1)
    density = 1 / (lsb.abs() + 1)
    density = (density / density.sum()).unsqueeze(-1)
    mix = torch.empty(features.shape[-1], d_model, dtype=torch.float64, device=weight.device)
    nn.init.orthogonal_(mix)
    return weight.copy_(_standardise(_standardise(features, density) @ mix, density))


def _log_spaced(first: float, last: float, count: int, like: Tensor) -> Float[Tensor, "count"]:
    exponents = torch.linspace(math.log(first), math.log(last), count, dtype=like.dtype, device=like.device)
    return exponents.exp()


def _standardise(
    columns: Float[Tensor, "n_levels features"], density: Float[Tensor, "n_levels 1"]
) -> Float[Tensor, "n_levels features"]:
    """Mean 0 and variance 1 of each column under `density`."""
    centred = columns - (density * columns).sum(0)
    return centred / (density * centred.square()).sum(0).sqrt()


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
