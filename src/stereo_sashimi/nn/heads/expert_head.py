"""ExpertHead: the mixture of the adaptive experts, moved by a small network for every channel.

Its hidden features are those of the backbone and, behind them, the numbers of the experts (`experts/adaptive.py`) on
each channel of the frame to come. At first it says what the experts say.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stereo_sashimi.distributions.logistic_mixture import Reference
from stereo_sashimi.experts.adaptive import N_KNOWN
from stereo_sashimi.experts.plan import N_FEATURES, N_MIXTURES
from stereo_sashimi.nn.heads.head import Earlier, Hidden, full_precision
from stereo_sashimi.nn.heads.logistic_mixture_head import DMLHead


class ExpertHead(DMLHead):
    """A discretised mixture of N_MIXTURES logistics, as `Reference` has it; parameters hold the reference as well.

    With coupling the experts of a channel have read the channels before it, so there is nothing else to couple.
    `d_backbone`: features of the backbone; 0 without one.
    """

    def __init__(self, d_backbone: int, n_channels: int, n_levels: int, coupling: str, d_hidden: int) -> None:
        # A backbone's width for the linear maps of DMLHead, which are replaced.
        super().__init__(max(1, d_backbone), n_channels, n_levels, "independent", N_MIXTURES)
        self.coupling, self.d_backbone = coupling, d_backbone
        self.d_output = 3 * N_MIXTURES + 1 + 3 * N_MIXTURES
        self.channels = nn.ModuleList(
            nn.Sequential(
                nn.Linear(d_backbone + N_FEATURES * (channel + 1), d_hidden),
                nn.GELU(),
                nn.Linear(d_hidden, 3 * N_MIXTURES),
            )
            for channel in range(n_channels)
        )
        for network in self.channels:
            for parameter in network.get_submodule("2").parameters():
                nn.init.zeros_(parameter)

    def channel_parameters(
        self, hidden: Hidden, codes_before: Earlier | None, channel: int
    ) -> Float[Tensor, "batch length d_output"]:
        """Parameters and reference of `channel`; what the channels before it were is in `hidden` already."""
        if channel and self.n_coupled:
            self._earlier(codes_before, channel)
        said = hidden[..., self.d_backbone :].unflatten(-1, (-1, N_KNOWN))
        # Of itself and the channels before it: those behind it have read its code.
        features = said[..., : channel + 1, -N_FEATURES:].flatten(-2)
        inputs = torch.cat([hidden[..., : self.d_backbone], features], dim=-1)
        params = full_precision(self.channels[channel], inputs)
        return torch.cat([params, said[..., channel, :-N_FEATURES].to(params.dtype)], dim=-1)

    def _split(self, params: Tensor) -> tuple[Tensor, Reference]:
        own, base, *mixture = params.split([3 * N_MIXTURES, 1, N_MIXTURES, N_MIXTURES, N_MIXTURES], dim=-1)
        return own, Reference(base.squeeze(-1).long(), *mixture)
