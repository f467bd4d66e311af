"""DMLHead: a discretised mixture of logistics for every channel. The shared walk over channels is in `head.py`.

Three numbers for each logistic say what the categorical head needs 65,536 logits for; the mathematics is in
`distributions/logistic_mixture.py`.
"""

import math
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stereo_sashimi.distributions import categorical
from stereo_sashimi.distributions import logistic_mixture as dml
from stereo_sashimi.distributions.sampler import Sampler
from stereo_sashimi.nn.heads.head import Earlier, Head, Hidden, Score, by_rows, full_precision


class DMLHead(Head):
    """Discretised mixtures of logistics; d_output = 3 * n_mixtures: logits, means, log-scales.

    Coupling (PixelCNN++, Salimans et al. 2017, section 2.2, without its tanh): the mean of logistic k of channel c
    moves by sum over j < c of coefficient_cjk * x_j, x_j in [-1, 1] being the amplitude of channel j in this frame.
    """

    n_uniforms = 2
    MASSES_AT_ONCE: ClassVar[int] = 2**22  # over codes and mixtures, for ranks
    MAX_RANKED_LEVELS: ClassVar[int] = 256

    def __init__(self, d_model: int, n_channels: int, n_levels: int, coupling: str, n_mixtures: int) -> None:
        super().__init__(d_model, n_channels, n_levels, 3 * n_mixtures, coupling)
        self.n_mixtures = n_mixtures
        self.couplers = nn.ModuleList(
            nn.Linear(d_model, channel * n_mixtures) for channel in range(1, self.n_coupled + 1)
        )
        self._start_flat(d_model)

    @torch.no_grad()
    def _start_flat(self, d_model: int) -> None:
        """Start near the uniform distribution: logistics of equal weight side by side over [-1, 1], not coupled.

        The scale is a quarter of their distance: a code costs within 0.5 bits of log2(n_levels)
        on average, over white noise and over music alike, for any number of logistics.
        """
        for linear in self.channels:
            weight, bias = linear.parameters()
            nn.init.normal_(weight, std=0.1 / math.sqrt(d_model))
            logits, means, log_scales = bias.chunk(3)
            logits.zero_()
            means.copy_((2 * torch.arange(self.n_mixtures) + 1) / self.n_mixtures - 1)
            log_scales.fill_(math.log(0.5 / self.n_mixtures))
        for parameter in self.couplers.parameters():
            nn.init.zeros_(parameter)

    @property
    def can_rank(self) -> bool:
        """A rank needs the masses of all codes: only up to 256 of them."""
        return self.n_levels <= self.MAX_RANKED_LEVELS

    def channel_parameters(
        self, hidden: Hidden, codes_before: Earlier | None, channel: int
    ) -> Float[Tensor, "batch length parameters"]:
        """Parameters of `channel`, given the codes of the channels before it: the coupling has moved the means."""
        params = full_precision(self.channels[channel], hidden)
        if channel == 0 or self.n_coupled == 0:
            return params
        earlier = self._earlier(codes_before, channel)
        x = earlier.to(params.dtype) * (2 / self.n_levels) - 1
        # Of the `channel` channels before this one: (batch, length, channel, n_mixtures).
        coefficients = full_precision(self.couplers[channel - 1], hidden).unflatten(-1, (channel, self.n_mixtures))
        return dml.shift_means(params, (coefficients * x.unsqueeze(-1)).sum(-2))

    def _score_channel(self, hidden: Tensor, codes: Tensor, channel: int, with_rank: bool) -> Score:
        params = self.channel_parameters(hidden, codes[..., :channel], channel)
        true = codes[..., channel]
        own, reference = self._split(params)
        log_prob = dml.lean_log_prob(own, true, self.n_levels, reference)
        return Score(log_prob, self._rank(params, true) if with_rank else None)

    @torch.no_grad()
    def _rank(self, params: Tensor, true: Tensor) -> Tensor:
        def rank(params: Tensor, true: Tensor) -> tuple[Tensor]:
            return (categorical.rank(self._log_mass_channel(params), true),)

        rows = max(1, self.MASSES_AT_ONCE // (self.n_levels * self.n_mixtures))
        (ranks,) = by_rows(rank, rows, params.flatten(0, 1), true.flatten())
        return ranks.unflatten(0, true.shape)

    def check_sampling(self, sampler: Sampler) -> None:
        """Raise ValueError for top_k and top_p: logistics have no list of codes to cut."""
        if sampler.top_k is not None or sampler.top_p != 1.0:
            raise ValueError(
                f"The DML head draws from logistics and can apply neither top_k nor top_p; got "
                f"top_k={sampler.top_k}, top_p={sampler.top_p}. Use top_k=null top_p=1.0 and temperature, or a model "
                "with decoder=categorical."
            )

    def _sample_channel(self, params: Tensor, uniform: Tensor, sampler: Sampler) -> tuple[Tensor, Tensor]:
        own, reference = self._split(params)
        codes = dml.sample(own, self.n_levels, uniform, sampler, reference)
        return codes, dml.log_prob(own, codes, self.n_levels, reference)

    def _log_mass_channel(self, params: Tensor) -> Tensor:
        own, reference = self._split(params)
        return dml.log_mass(own, self.n_levels, reference)

    def _split(self, params: Tensor) -> tuple[Tensor, dml.Reference | None]:
        """Parameters and the mixture that they start from."""
        return params, None
