"""Heads: hidden features -> a distribution over the codes of every channel. What they share, and their configs.

The two heads are in `categorical_head.py` and `logistic_mixture_head.py`; the mathematics is in `distributions/`. A
frame is modelled by the chain rule, p(frame | h) = prod_c p(code_c | h, codes of channels < c):
`coupling="autoregressive"` uses the earlier channels, `coupling="independent"` (the default) ignores them. Mono is a
frame of one factor.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from stereo_sashimi.distributions.sampler import Sampler
from stereo_sashimi.schema import check_choice, check_count

COUPLINGS = ("independent", "autoregressive")


# Features; codes of all channels; codes of the channels before one.
Hidden = Float[Tensor, "batch length width"]
Codes = Int[Tensor, "batch length channels"]
Earlier = Int[Tensor, "batch length earlier"]


class Score(NamedTuple):
    """What a head says about given codes.

    - `log_prob`: (batch, length, channels), nats.
    - `rank`: int64 of the same shape, how many codes were strictly more likely; None if it was not asked for.
    """

    log_prob: Tensor
    rank: Tensor | None

    @staticmethod
    def of_channels(channels: "Sequence[Score]") -> "Score":
        """Scores of single channels, (batch, length) each, side by side."""
        ranks = [score.rank for score in channels if score.rank is not None]
        log_prob = torch.stack([score.log_prob for score in channels], dim=-1)
        return Score(log_prob, torch.stack(ranks, dim=-1) if ranks else None)


@dataclass(frozen=True)
class CategoricalHeadConfig:
    """A free logit for every code; `coupling` is `"independent"` or `"autoregressive"`, else ValueError."""

    kind: ClassVar[str] = "categorical"
    coupling: str = "independent"

    def __post_init__(self) -> None:
        check_choice(self.coupling, "decoder.coupling", COUPLINGS)

    def build(self, d_model: int, n_channels: int, n_levels: int) -> "Head":
        """Make the head that reads `d_model` features, the whole width, for each channel."""
        from stereo_sashimi.nn.heads.categorical_head import CategoricalHead

        return CategoricalHead(d_model, n_channels, n_levels, self.coupling)


@dataclass(frozen=True)
class DMLHeadConfig:
    """A discretised mixture of `n_mixtures` logistics (at least 1); `coupling` as in CategoricalHeadConfig."""

    kind: ClassVar[str] = "dml"
    coupling: str = "independent"
    n_mixtures: int = 10

    def __post_init__(self) -> None:
        check_choice(self.coupling, "decoder.coupling", COUPLINGS)
        check_count(self.n_mixtures, "decoder.n_mixtures")

    def build(self, d_model: int, n_channels: int, n_levels: int) -> "Head":
        """Make the head that reads `d_model` features, the whole width, for each channel."""
        from stereo_sashimi.nn.heads.logistic_mixture_head import DMLHead

        return DMLHead(d_model, n_channels, n_levels, self.coupling, self.n_mixtures)


@dataclass(frozen=True)
class ExpertHeadConfig:
    """How a mixture of logistics differs from that of the experts: a network of `d_hidden` units for each channel."""

    kind: ClassVar[str] = "experts"
    coupling: str = "autoregressive"
    d_hidden: int = 32

    def __post_init__(self) -> None:
        check_choice(self.coupling, "decoder.coupling", COUPLINGS)
        check_count(self.d_hidden, "decoder.d_hidden")

    def build(self, d_model: int, n_channels: int, n_levels: int) -> "Head":
        """Make the head that reads `d_model` features and, behind them, what the experts say of each channel."""
        from stereo_sashimi.nn.heads.expert_head import ExpertHead

        return ExpertHead(d_model, n_channels, n_levels, self.coupling, self.d_hidden)


class Head(nn.Module, ABC):
    """Features (batch, length, width) -> distributions over codes (batch, length, channels), one per channel.

    - `d_output`: P, the number of parameters of one distribution.
    - `n_uniforms`: how many uniform numbers one draw takes.
    - `can_rank`: whether `score(with_rank=True)` is possible.

    The methods here walk the channels in order; a subclass says what happens in one channel.
    """

    n_uniforms: int

    def __init__(self, d_model: int, n_channels: int, n_levels: int, d_output: int, coupling: str) -> None:
        super().__init__()
        if n_channels < 1 or n_levels < 2:
            raise ValueError(
                f"A head needs n_channels of at least 1 and n_levels of at least 2; got n_channels={n_channels}, "
                f"n_levels={n_levels}. Both come from `dataset` (is_stereo, bits)."
            )
        self.n_channels, self.n_levels = n_channels, n_levels
        self.d_output, self.coupling = d_output, coupling
        self.channels = nn.ModuleList(nn.Linear(d_model, d_output) for _ in range(n_channels))

    @property
    def can_rank(self) -> bool:
        """Whether the rank of a code, and so accuracy, can be told at a bearable cost."""
        return True

    @property
    def n_coupled(self) -> int:
        """Number of channels that read the codes of earlier ones: channels 1 to n_coupled, or none."""
        return self.n_channels - 1 if self.coupling == "autoregressive" else 0

    def score(self, hidden: Hidden, codes: Codes, with_rank: bool = False) -> Score:
        """Log probability of each code and, if asked, its rank; raises ValueError where `can_rank` is false."""
        self._check_score(codes, with_rank)
        return Score.of_channels(
            [self._score_channel(hidden, codes, channel, with_rank) for channel in range(self.n_channels)]
        )

    def loss(
        self, hidden: Hidden, codes: Codes, weight: Float[Tensor, "batch length"], with_rank: bool
    ) -> tuple[Float[Tensor, ""], Score]:
        """-sum(weight * log_prob) over frames and channels, to train on, and the score without gradients.

        `weight` says beforehand what each frame counts, without gradient: that lets a head make its gradients on the
        way. Raises as `score`.
        """
        self._check_score(codes, with_rank)
        steps = [self._loss_channel(hidden, codes, channel, weight, with_rank) for channel in range(self.n_channels)]
        return torch.stack([loss for loss, _ in steps]).sum(), Score.of_channels([score for _, score in steps])

    @torch.no_grad()
    def sample(
        self, hidden: Hidden, uniform: Float[Tensor, "batch length channels n_uniforms"], sampler: Sampler | None = None
    ) -> tuple[Codes, Float[Tensor, "batch length channels"]]:
        """Draw the frames at each position, channel after channel.

        `uniform` are numbers in [0, 1) from the caller's generators, best in float64; `sampler` None draws from the
        model itself. Returns the codes (int64) and their log probability under the model itself, whatever the sampler.
        No gradients. Raises ValueError as `check_sampling`.
        """
        sampler = sampler or Sampler()
        self.check_sampling(sampler)
        expected = (*hidden.shape[:2], self.n_channels, self.n_uniforms)
        if tuple(uniform.shape) != expected:
            raise ValueError(
                f"sample needs uniform numbers of shape (batch, length, channels, n_uniforms) = {expected}; "
                f"got {tuple(uniform.shape)}."
            )
        codes = torch.empty((*hidden.shape[:2], 0), dtype=torch.long, device=hidden.device)
        log_probs = []
        for channel in range(self.n_channels):
            code, log_prob = self.sample_channel(hidden, codes, channel, uniform[:, :, channel], sampler)
            codes = torch.cat((codes, code.unsqueeze(-1)), dim=-1)
            log_probs.append(log_prob)
        return codes, torch.stack(log_probs, dim=-1)

    @torch.no_grad()
    def sample_channel(
        self,
        hidden: Hidden,
        codes_before: Earlier,
        channel: int,
        uniform: Float[Tensor, "batch length n_uniforms"],
        sampler: Sampler,
    ) -> tuple[Int[Tensor, "batch length"], Float[Tensor, "batch length"]]:
        """One step of `sample`: the codes of `channel` behind those of the channels before it."""
        return self._sample_channel(self.channel_parameters(hidden, codes_before, channel), uniform, sampler)

    @abstractmethod
    def check_sampling(self, sampler: Sampler) -> None:
        """Raise ValueError for a restriction that this head's distributions cannot be sampled under."""

    def log_mass(
        self, hidden: Hidden, codes_before: Earlier | None, channel: int
    ) -> Float[Tensor, "batch length n_levels"]:
        """Log masses of all codes of `channel`, given the codes of the channels before it in the same frame."""
        return self._log_mass_channel(self.channel_parameters(hidden, codes_before, channel))

    @abstractmethod
    def channel_parameters(
        self, hidden: Hidden, codes_before: Earlier | None, channel: int
    ) -> Float[Tensor, "batch length d_output"]:
        """Parameters of one channel given the codes of the channels before it (None: only if not coupled)."""

    @abstractmethod
    def _score_channel(self, hidden: Tensor, codes: Tensor, channel: int, with_rank: bool) -> Score:
        """`score` of one channel, (batch, length); `codes` has all channels."""

    def _loss_channel(
        self, hidden: Tensor, codes: Tensor, channel: int, weight: Tensor, with_rank: bool
    ) -> tuple[Tensor, Score]:
        """`loss` of one channel."""
        score = self._score_channel(hidden, codes, channel, with_rank)
        # A frame that does not count must not give NaN either.
        loss = -torch.where(weight != 0, score.log_prob * weight, 0.0).sum()
        return loss, Score(score.log_prob.detach(), score.rank)

    @abstractmethod
    def _sample_channel(self, params: Tensor, uniform: Tensor, sampler: Sampler) -> tuple[Tensor, Tensor]:
        """Draw codes from the parameters of one channel; returns them and their log probability."""

    @abstractmethod
    def _log_mass_channel(self, params: Tensor) -> Tensor:
        """Log masses of all codes from the parameters of one channel."""

    def _earlier(self, codes_before: Tensor | None, channel: int) -> Tensor:
        """The codes of the channels before `channel`; ValueError if there are none to read."""
        if codes_before is None or codes_before.shape[-1] < channel:
            given = "None" if codes_before is None else f"{codes_before.shape[-1]} channels"
            raise ValueError(
                f"Channel {channel} of an autoregressive head needs the codes of the {channel} channels before it; "
                f"got {given}. Pass them, or use decoder.coupling=independent."
            )
        return codes_before[..., :channel]

    def _check_score(self, codes: Tensor, with_rank: bool) -> None:
        if codes.ndim != 3 or codes.shape[-1] != self.n_channels:
            raise ValueError(
                f"This head models {self.n_channels} channels, codes of (batch, length, {self.n_channels}); got shape "
                f"{tuple(codes.shape)}. Match `dataset` (is_stereo) to the model."
            )
        if with_rank and not self.can_rank:
            raise ValueError(
                f"accuracy needs the rank of each code, and this head would have to compute {self.n_levels} masses "
                "for each one. Use task.metrics=[bpb], 8-bit audio (dataset.bits=8) or decoder=categorical."
            )


def by_rows(function: Callable[..., tuple[Tensor, ...]], rows_at_once: int, *tensors: Tensor) -> tuple[Tensor, ...]:
    """Apply `function` to slices of at most `rows_at_once` rows of `tensors`, and join each of its results."""
    slices = zip(*(tensor.split(rows_at_once) for tensor in tensors), strict=True)
    results = [function(*part) for part in slices]
    return tuple(torch.cat(column) for column in zip(*results, strict=True))


def full_precision(linear: nn.Module, hidden: Tensor) -> Tensor:
    """Apply `linear` in the precision of its weights: a mean in bfloat16 would be rounded to hundreds of LSB."""
    dtype = next(linear.parameters()).dtype
    with torch.autocast(device_type=hidden.device.type, enabled=False):
        return linear(hidden.to(dtype))
