"""LanguageModel: codes -> MultiChannelEmbedding -> Sashimi -> per-channel head. One frame at a time or all at once.

With adaptive experts (`experts/`) the backbone hears what they said of each frame and how wrong they were, and the head
starts from what they say of the frame to come.
"""

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor, nn

from stereo_sashimi.distributions.sampler import Sampler
from stereo_sashimi.experts.adaptive import AdaptiveExperts, Said
from stereo_sashimi.experts.plan import N_FEATURES
from stereo_sashimi.models.language_model_config import LanguageModelConfig
from stereo_sashimi.models.no_backbone import NoBackbone
from stereo_sashimi.models.sashimi import Sashimi, SashimiConfig, SashimiState, finite_rows, reset_rows
from stereo_sashimi.nn.embedding import MultiChannelEmbedding
from stereo_sashimi.nn.heads.head import Head, Score, full_precision

Codes = Int64[Tensor, "batch length channels"]
Features = Float[Tensor, "rows length width"]


class LanguageModel(nn.Module):
    """An autoregressive density over codes (batch, length, channels), mono being channels = 1.

    `forward` gives hidden features from previous codes; `score`, `loss`, `sample` and `log_mass` read them through the
    head, because with `coupling: autoregressive` a channel sees the ones before it in the same frame.

    With `encoder.merge: none` every channel of a clip is a sequence of its own, with the parameters of a mono model.
    Hidden features and states then have `n_sequences` rows a clip, (clip, channel) in this order: shapes say "rows".

    With experts the features of a known frame (`hidden_for`, `hidden_after`, `hidden_of`) end with what they say of it,
    channel by channel; their own state is the last of `SashimiState.layers`, on the CPU.

    Attributes:
        n_sequences: the number of channels with `encoder.merge: none`, else 1.
    """

    def __init__(
        self, config: LanguageModelConfig, backend: str = "auto", activation_checkpointing: bool = False
    ) -> None:
        super().__init__()
        self.config = config
        self.spec = spec = config.spec
        self.n_sequences = spec.n_channels if config.encoder.separate else 1
        d_input = spec.n_channels // self.n_sequences
        self.embedding: MultiChannelEmbedding | None = None
        if isinstance(config.model, SashimiConfig):
            self.embedding = config.encoder.build(d_input, spec.n_levels)
        width = 0 if self.embedding is None else self.embedding.d_output
        self.backbone: Sashimi | NoBackbone = config.model.build(width, backend, activation_checkpointing)
        self.head: Head = config.decoder.build(width, d_input, spec.n_levels)
        self.experts: AdaptiveExperts | None = None
        self.hearing: nn.Linear | None = None
        if config.experts is not None:
            coupled = config.decoder.coupling == "autoregressive"
            self.experts = AdaptiveExperts(config.experts, d_input, spec.n_levels, coupled)
            if width:
                self.hearing = nn.Linear(d_input * (N_FEATURES + 1), width)
        self.register_load_state_dict_pre_hook(_rename_weights)

    def initial_state(self, batch_size: int) -> SashimiState:
        """The state before the first frame of a track."""
        phase, layers = self.backbone.initial_state(batch_size * self.n_sequences)
        return SashimiState(
            phase, layers if self.experts is None else (*layers, self.experts.initial_state(batch_size))
        )

    def start_codes(self, batch_size: int) -> Codes:
        """The 1 + pad_len codes before the first frame of a track."""
        device = next(self.parameters()).device
        shape = (batch_size, 1 + self.config.pad_len, self.spec.n_channels)
        return torch.full(shape, self.spec.start_code, dtype=torch.int64, device=device)

    def forward(self, codes: Codes, state: SashimiState | None = None) -> tuple[Features, SashimiState | None]:
        """The backbone's features, that predict the frame after each of `codes`; state as in `Sashimi`.

        With experts these predict together with what `sample` asks them about that frame.
        """
        said, experts = self._ask(codes, state)
        return self._advance(codes, said, state, experts)

    def _ask(self, codes: Tensor, state: SashimiState | None) -> tuple[Said | None, Tensor | None]:
        """What the experts say of each of `codes`, and their state behind them; None without experts."""
        if codes.shape[-1] != self.spec.n_channels:
            raise ValueError(
                f"This model reads {self.spec.n_channels} channels; got codes with {codes.shape[-1]}, shape "
                f"{tuple(codes.shape)}. Match `dataset` (is_stereo) to the model."
            )
        if self.experts is None:
            return None, None
        return self.experts.predict(codes, None if state is None else state.layers[-1])

    def _advance(
        self, codes: Tensor, said: Said | None, state: SashimiState | None, experts: Tensor | None
    ) -> tuple[Tensor, SashimiState | None]:
        """The backbone's features behind each of `codes`, of which the experts had `said` so much, and the state."""
        own = state if state is None or said is None else SashimiState(state.phase, state.layers[:-1])
        if self.embedding is None:
            assert said is not None
            hidden, own = self.backbone(said.flatten(2).to(codes.device), own)
        else:
            x = self.embedding(self.fold(codes))
            if self.hearing is not None and said is not None:
                x = x + full_precision(self.hearing, said[..., -N_FEATURES - 1 :].flatten(2).to(x.device))
            hidden, own = self.backbone(x, own)
        if own is None or experts is None:
            return hidden, own
        return hidden, SashimiState(own.phase, (*own.layers, experts))

    def _with(self, hidden: Tensor, said: Said | None) -> Tensor:
        """Features of known frames: the backbone's and what the experts say of each, but the error."""
        if said is None:
            return hidden
        # Not below float32, in which a base is exact.
        dtype = torch.promote_types(hidden.dtype, torch.float32)
        return torch.cat([hidden.to(dtype), said[..., :-1].flatten(2).to(hidden.device, dtype)], dim=-1)

    def hidden_for(self, codes: Codes, before: Int64[Tensor, "batch frames channels"] | None = None) -> Features:
        """Features that predict each frame of `codes` from the frames before it, from the start of a track.

        - `before`: for experts, frames in front of `codes`, more than `pad_len`. They read them all first; the backbone
          begins with the last 1 + pad_len of them, as if these were start codes.
        """
        lead, read = self.start_codes(codes.shape[0]) if before is None else before, 1 + self.config.pad_len
        known = torch.cat([lead, codes], dim=1)
        said, _ = self._ask(known, None)
        part = slice(lead.shape[1] - read, -1)
        hidden, _ = self._advance(known[:, part], None if said is None else said[:, part], None, None)
        return self._with(hidden[:, self.config.pad_len :], None if said is None else said[:, lead.shape[1] :])

    def hidden_after(
        self, previous: Int64[Tensor, "batch 1 channels"], codes: Codes, state: SashimiState
    ) -> tuple[Features, SashimiState]:
        """Features that predict each frame of a segment, and the state for the segment that follows it.

        - `previous`: the frame before the segment, or `start_codes` at the start of a track (of `pad_len` 0).
        - `state`: what the segment before returned, or `initial_state`. It stands behind all frames before `previous`.
        """
        inputs = torch.cat([previous, codes[:, :-1]], dim=1)
        said, experts = self._ask(inputs, state)
        hidden, after = self._advance(inputs, said, state, experts)
        assert after is not None
        if said is None:
            return hidden, after
        last, _ = self._ask(codes[:, -1:], after)
        assert last is not None
        return self._with(hidden, torch.cat([said[:, 1:], last], dim=1)), after

    def hidden_of(
        self, codes: Codes, first: Float[Tensor, "rows 1 width"], state: SashimiState
    ) -> tuple[Features, Float[Tensor, "rows 1 width"], SashimiState]:
        """Features that predict each frame of a segment, those of `forward` for the frame after it, and the state.

        - `first`: what `forward` gave for the first frame. `state`: behind all frames before it.
        """
        said, experts = self._ask(codes, state)
        hidden, after = self._advance(codes, said, state, experts)
        assert after is not None
        return self._with(torch.cat([first, hidden[:, :-1]], dim=1), said), hidden[:, -1:], after

    def reset_rows(self, state: SashimiState, rows: Bool[Tensor, "batch"]) -> SashimiState:
        """`state` with the rows that `rows` marks at the start of a track; raises as `models.sashimi.reset_rows`."""
        # The channels of a clip may be sequences of their own: (batch sequences) rows.
        return reset_rows(state, self.initial_state(len(rows)), rows.repeat_interleave(self.n_sequences))

    def finite_rows(self, state: SashimiState, batch_size: int) -> Bool[Tensor, "batch"]:
        """The rows of `state` without any NaN or infinity."""
        return finite_rows(state).view(batch_size, self.n_sequences).all(dim=1)

    def log_prob(self, codes: Codes) -> Float[Tensor, "batch length channels"]:
        """Log-probability in nats of each code given everything before it, from the start of a track."""
        return self.score(self.hidden_for(codes), codes).log_prob

    def score(self, hidden: Features, codes: Codes, with_rank: bool = False) -> Score:
        """Log probability of each code and, if asked, its rank; as `Head.score`."""
        pairs = zip(self._by_sequence(hidden), codes.chunk(self.n_sequences, dim=-1), strict=True)
        return _joined([self.head.score(features, own, with_rank) for features, own in pairs])

    def loss(
        self, hidden: Features, codes: Codes, weight: Float[Tensor, "batch length"], with_rank: bool
    ) -> tuple[Float[Tensor, ""], Score]:
        """-sum(weight * log_prob) over frames and channels, and the score without gradients; as `Head.loss`."""
        pairs = zip(self._by_sequence(hidden), codes.chunk(self.n_sequences, dim=-1), strict=True)
        losses, scores = zip(
            *(self.head.loss(features, own, weight, with_rank) for features, own in pairs), strict=True
        )
        return reduce(torch.add, losses), _joined(scores)

    def sample(
        self,
        hidden: Features,
        uniform: Float[Tensor, "batch length channels n_uniforms"],
        sampler: Sampler | None = None,
        state: SashimiState | None = None,
    ) -> tuple[Codes, Float[Tensor, "batch length channels"]]:
        """Draw the frame at each position; returns codes and their log probability, as `Head.sample`.

        - `state`: what `forward` returned with `hidden`, for experts, who are asked about a single frame; else unused.
        """
        if self.experts is not None:
            return self._sample_with_experts(hidden, uniform, sampler or Sampler(), state)
        pairs = zip(self._by_sequence(hidden), uniform.chunk(self.n_sequences, dim=2), strict=True)
        codes, log_probs = zip(*(self.head.sample(features, own, sampler) for features, own in pairs), strict=True)
        return _side_by_side(codes), _side_by_side(log_probs)

    @torch.no_grad()
    def _sample_with_experts(
        self, hidden: Tensor, uniform: Tensor, sampler: Sampler, state: SashimiState | None
    ) -> tuple[Tensor, Tensor]:
        assert self.experts is not None
        if state is None or hidden.shape[1] != 1:
            raise ValueError("with experts `sample` draws one frame and needs the state that `forward` gave with it.")
        experts = state.layers[-1]
        assert experts is not None
        self.head.check_sampling(sampler)
        codes, log_probs = uniform.new_zeros((*hidden.shape[:2], 0), dtype=torch.int64), []
        for channel in range(self.spec.n_channels):
            known = self._with(hidden, self.experts.outlook(codes, experts))
            code, log_prob = self.head.sample_channel(known, codes, channel, uniform[:, :, channel], sampler)
            codes = torch.cat([codes, code.unsqueeze(-1)], dim=-1)
            log_probs.append(log_prob)
        return codes, torch.stack(log_probs, dim=-1)

    def log_mass(
        self, hidden: Features, codes_before: Int64[Tensor, "batch length earlier"] | None, channel: int
    ) -> Float[Tensor, "batch length n_levels"]:
        """Log masses of all codes of `channel`, given the codes of the channels before it in the same frame."""
        sequence, channel = divmod(channel, self.head.n_channels)
        return self.head.log_mass(self._by_sequence(hidden)[sequence], codes_before, channel)

    def fold(self, values: Shaped[Tensor, "batch length channels ..."]) -> Shaped[Tensor, "rows length own ..."]:
        """Codes or uniform numbers of every channel -> those of the rows that the backbone and the head work on."""
        return rearrange(values, "b l (s c) ... -> (b s) l c ...", s=self.n_sequences)

    def unfold(self, values: Shaped[Tensor, "rows length own"]) -> Shaped[Tensor, "batch length channels"]:
        """The inverse of `fold`."""
        return rearrange(values, "(b s) l c -> b l (s c)", s=self.n_sequences)

    def _by_sequence(self, hidden: Tensor) -> tuple[Tensor, ...]:
        """The features (batch, length, width) of each sequence of a clip.

        Their losses are summed one after the other, which keeps the bits of training runs.
        """
        return hidden.unflatten(0, (-1, self.n_sequences)).unbind(1)


def current_names(weights: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Weights under today's names: with `encoder.merge: none` the head's used to begin with `head.mono.`."""
    old = f"{prefix}head.mono."
    return {
        f"{prefix}head.{name.removeprefix(old)}" if name.startswith(old) else name: value
        for name, value in weights.items()
    }


def _rename_weights(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: object) -> None:
    renamed = current_names(state_dict, prefix)
    state_dict.clear()
    state_dict.update(renamed)


def _side_by_side(parts: Sequence[Tensor]) -> Tensor:
    """Channels of all sequences. One sequence is not copied: in a CUDA graph a copy is a launch a frame."""
    return parts[0] if len(parts) == 1 else torch.cat(tuple(parts), dim=-1)


def _joined(scores: Sequence[Score]) -> Score:
    ranks = [score.rank for score in scores if score.rank is not None]
    return Score(_side_by_side([score.log_prob for score in scores]), _side_by_side(ranks) if ranks else None)
