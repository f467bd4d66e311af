"""SharedHead: one mono head for every channel, where channels are sequences of their own (`encoder.merge: none`)."""

from jaxtyping import Float, Int
from torch import Tensor, nn

from stereo_sashimi.distributions.sampler import Sampler
from stereo_sashimi.nn.heads.head import Head, Score


class SharedHead(Head):
    """Channel c reads only its own part of the features, (batch, length, n_channels * d_model) in channel order.

    - `mono`: the head of one channel; its parameters serve all of them.
    """

    def __init__(self, mono: Head, n_channels: int) -> None:
        # Not Head.__init__, which would make one linear map a channel.
        nn.Module.__init__(self)
        self.mono = mono
        self.n_channels, self.n_levels = n_channels, mono.n_levels
        self.d_output, self.coupling, self.n_uniforms = mono.d_output, "independent", mono.n_uniforms

    @property
    def can_rank(self) -> bool:
        """As the mono head's."""
        return self.mono.can_rank

    def check_sampling(self, sampler: Sampler) -> None:
        """As the mono head's."""
        self.mono.check_sampling(sampler)

    def channel_parameters(
        self,
        hidden: Float[Tensor, "batch length width"],
        codes_before: Int[Tensor, "batch length earlier"] | None,
        channel: int,
    ) -> Float[Tensor, "batch length d_output"]:
        """Parameters of one channel, from its own features."""
        return self.mono.channel_parameters(self._own(hidden, channel), None, 0)

    def _own(self, hidden: Tensor, channel: int) -> Tensor:
        return hidden.chunk(self.n_channels, dim=-1)[channel]

    def _score_channel(self, hidden: Tensor, codes: Tensor, channel: int, with_rank: bool) -> Score:
        return self.mono._score_channel(self._own(hidden, channel), codes[..., channel : channel + 1], 0, with_rank)

    def _loss_channel(
        self, hidden: Tensor, codes: Tensor, channel: int, weight: Tensor, with_rank: bool
    ) -> tuple[Tensor, Score]:
        own = codes[..., channel : channel + 1]
        return self.mono._loss_channel(self._own(hidden, channel), own, 0, weight, with_rank)

    def _sample_channel(self, params: Tensor, uniform: Tensor, sampler: Sampler) -> tuple[Tensor, Tensor]:
        return self.mono._sample_channel(params, uniform, sampler)

    def _log_mass_channel(self, params: Tensor) -> Tensor:
        return self.mono._log_mass_channel(params)
