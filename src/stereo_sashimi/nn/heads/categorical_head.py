"""CategoricalHead: a free logit for every code of every channel. The shared walk over channels is in `head.py`.

With 65,536 codes the logits of one training batch take gigabytes, so the likelihood walks them in slices. `score`
computes each slice again in the backward pass; `loss` makes its gradients on the way (`ops/linear_cross_entropy.py`).
The mathematics is in `distributions/categorical.py`.
"""

from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from stereo_sashimi.distributions import categorical
from stereo_sashimi.distributions.sampler import Sampler
from stereo_sashimi.nn.embedding import waveform_rows_
from stereo_sashimi.nn.heads.head import Earlier, Head, Hidden, Score, by_rows, full_precision
from stereo_sashimi.ops.linear_cross_entropy import LOGITS_AT_ONCE, linear_cross_entropy


class FrameMixer(nn.Module):
    """Mixes the codes of the first `n_before` channels of a frame into the hidden features of the next channel.

    z = h + W2 gelu(W1 h + sum_j E_j(code_j)): nonlinear, so that an earlier code can change the shape of the
    distribution and not only add a fixed vector of logits to it.
    """

    def __init__(self, d_model: int, n_before: int, n_levels: int) -> None:
        super().__init__()
        self.inner = nn.Linear(d_model, d_model)
        self.outer = nn.Linear(d_model, d_model)
        self.tables = nn.ModuleList(nn.Embedding(n_levels, d_model) for _ in range(n_before))
        for table in self.tables.parameters():
            waveform_rows_(table)

    def forward(self, hidden: Hidden, codes: Earlier) -> Hidden:
        """Features of the next channel, given the `codes` of the channels before it."""
        inner = self.inner(hidden)
        for channel, table in enumerate(self.tables):
            inner = inner + table(codes[..., channel])
        return hidden + self.outer(F.gelu(inner))


class CategoricalHead(Head):
    """Categorical distributions; d_output = n_levels logits for each channel."""

    n_uniforms = 1
    LOGITS_AT_ONCE: ClassVar[int] = LOGITS_AT_ONCE

    def __init__(self, d_model: int, n_channels: int, n_levels: int, coupling: str) -> None:
        super().__init__(d_model, n_channels, n_levels, n_levels, coupling)
        self.mixers = nn.ModuleList(FrameMixer(d_model, channel, n_levels) for channel in range(1, self.n_coupled + 1))

    def channel_features(self, hidden: Hidden, codes_before: Earlier | None, channel: int) -> Hidden:
        """The features that the logits of `channel` are linear in."""
        if channel == 0 or self.n_coupled == 0:
            return hidden
        return self.mixers[channel - 1](hidden, self._earlier(codes_before, channel))

    def channel_parameters(
        self, hidden: Hidden, codes_before: Earlier | None, channel: int
    ) -> Float[Tensor, "batch length n_levels"]:
        """Logits of `channel`, given the codes of the channels before it."""
        return full_precision(self.channels[channel], self.channel_features(hidden, codes_before, channel))

    def _score_channel(self, hidden: Tensor, codes: Tensor, channel: int, with_rank: bool) -> Score:
        linear = self.channels[channel]
        features = self.channel_features(hidden, codes[..., :channel], channel).flatten(0, 1)
        true = codes[..., channel].flatten()
        rows = max(1, self.LOGITS_AT_ONCE // self.n_levels)

        def score(features: Tensor, true: Tensor) -> tuple[Tensor, ...]:
            logits = full_precision(linear, features)
            log_prob = categorical.log_prob(logits, true)
            # Last, so that the recomputation in the backward pass stops before it.
            return (log_prob, categorical.rank(logits.detach(), true)) if with_rank else (log_prob,)

        again = partial(checkpoint, score, use_reentrant=False, preserve_rng_state=False)
        sliced = torch.is_grad_enabled() and len(features) > rows
        results = by_rows(again if sliced else score, rows, features, true)
        shaped = [result.unflatten(0, codes.shape[:2]) for result in results]
        return Score(shaped[0], shaped[1] if with_rank else None)

    def _loss_channel(
        self, hidden: Tensor, codes: Tensor, channel: int, weight: Tensor, with_rank: bool
    ) -> tuple[Tensor, Score]:
        if not torch.is_grad_enabled():
            return super()._loss_channel(hidden, codes, channel, weight, with_rank)
        features = self.channel_features(hidden, codes[..., :channel], channel).flatten(0, 1)
        weights, bias = self.channels[channel].parameters()
        with torch.autocast(hidden.device.type, enabled=False):
            loss, log_prob, rank = linear_cross_entropy(
                features, weights, bias, codes[..., channel].flatten(), weight.flatten(), with_rank
            )
        shape = codes.shape[:2]
        return loss, Score(log_prob.unflatten(0, shape), None if rank is None else rank.unflatten(0, shape))

    def check_sampling(self, sampler: Sampler) -> None:
        """Raise ValueError for the temperatures of a mixture: there is none."""
        if sampler.mixture_temperature is not None or sampler.scale_temperature is not None:
            raise ValueError(
                "mixture_temperature and scale_temperature are for the DML head, and this model has a categorical one; "
                f"got {sampler.mixture_temperature} and {sampler.scale_temperature}. Use temperature, top_k or top_p."
            )

    def _sample_channel(self, params: Tensor, uniform: Tensor, sampler: Sampler) -> tuple[Tensor, Tensor]:
        codes = categorical.sample(params, uniform[..., 0], sampler)
        return codes, categorical.log_prob(params, codes)

    def _log_mass_channel(self, params: Tensor) -> Tensor:
        return categorical.log_mass(params)
