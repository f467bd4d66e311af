"""LanguageModel: codes -> MultiChannelEmbedding -> Sashimi -> per-channel head. One frame at a time or all at once."""

from dataclasses import dataclass, field
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from stereo_sashimi.models.sashimi import Sashimi, SashimiConfig, SashimiState, finite_rows, reset_rows
from stereo_sashimi.nn.embedding import EmbeddingConfig, MultiChannelEmbedding
from stereo_sashimi.nn.heads.head import CategoricalHeadConfig, DMLHeadConfig, Head
from stereo_sashimi.nn.heads.shared_head import SharedHead
from stereo_sashimi.schema import from_plain, to_plain
from stereo_sashimi.spec import AudioSpec

HeadConfig = CategoricalHeadConfig | DMLHeadConfig


@dataclass(frozen=True)
class LanguageModelConfig:
    """Everything that rebuilds a model: the audio it reads, encoder, backbone and decoder. Saved in checkpoints.

    `pad_len`: a track begins with 1 + pad_len start codes, in training, scoring and sampling alike.
    """

    spec: AudioSpec
    encoder: EmbeddingConfig = field(default_factory=EmbeddingConfig)
    model: SashimiConfig = field(default_factory=SashimiConfig)
    decoder: HeadConfig = field(default_factory=CategoricalHeadConfig)
    pad_len: int = 0

    def __post_init__(self) -> None:
        if self.pad_len < 0:
            raise ValueError(f"dataset.pad_len must be 0 or more, or null; got {self.pad_len}.")
        if self.encoder.separate and self.decoder.coupling != "independent":
            raise ValueError(
                f"decoder.coupling={self.decoder.coupling} needs channels that know of each other, but "
                "encoder.merge=none makes each a sequence of its own. Use encoder.merge=concat, sum or mix."
            )

    def build(self, backend: str = "auto", activation_checkpointing: bool = False) -> "LanguageModel":
        """A freshly initialised model; `backend` and `activation_checkpointing` as in `Sashimi`."""
        return LanguageModel(self, backend, activation_checkpointing)

    def to_plain(self) -> dict[str, Any]:
        """Plain fields only, no class paths."""
        plain: dict[str, Any] = to_plain(self)
        return plain

    @classmethod
    def from_plain(cls, data: Any) -> "LanguageModelConfig":
        """Validate plain fields. Raises ValueError naming the first field that is wrong."""
        if not isinstance(data, dict) or set(data) != {"spec", "encoder", "model", "decoder", "pad_len"}:
            raise ValueError("A model description must hold exactly: spec, encoder, model, decoder, pad_len.")
        return cls(
            spec=from_plain(data["spec"], (AudioSpec,), "spec"),
            encoder=from_plain(data["encoder"], (EmbeddingConfig,), "encoder"),
            model=from_plain(data["model"], (SashimiConfig,), "model"),
            decoder=from_plain(data["decoder"], (CategoricalHeadConfig, DMLHeadConfig), "decoder"),
            pad_len=data["pad_len"],
        )


class LanguageModel(nn.Module):
    """An autoregressive density over codes (batch, length, channels), mono being channels = 1.

    `forward` gives hidden features from previous codes; the head owns `log_prob(hidden, codes)` and
    `sample(hidden, ..)`, because with `coupling: autoregressive` a channel sees the ones before it in the same frame.

    With `encoder.merge: none` the channels are folded into the batch of the backbone, `n_sequences` to a clip, and
    their features lie side by side outside it.
    """

    def __init__(
        self, config: LanguageModelConfig, backend: str = "auto", activation_checkpointing: bool = False
    ) -> None:
        super().__init__()
        self.config = config
        self.spec = spec = config.spec
        self.n_sequences = spec.n_channels if config.encoder.separate else 1
        d_input = spec.n_channels // self.n_sequences
        self.embedding: MultiChannelEmbedding = config.encoder.build(d_input, spec.n_levels)
        width = self.embedding.d_output
        self.backbone: Sashimi = config.model.build(width, backend, activation_checkpointing)
        head: Head = config.decoder.build(width, d_input, spec.n_levels)
        self.head: Head = SharedHead(head, spec.n_channels) if self.n_sequences > 1 else head

    def initial_state(self, batch_size: int) -> SashimiState:
        """The state before the first frame of a track."""
        return self.backbone.initial_state(batch_size * self.n_sequences)

    def start_codes(self, batch_size: int) -> Int64[Tensor, "batch length channels"]:
        """The 1 + pad_len codes before the first frame of a track."""
        device = next(self.parameters()).device
        shape = (batch_size, 1 + self.config.pad_len, self.spec.n_channels)
        return torch.full(shape, self.spec.start_code, dtype=torch.int64, device=device)

    def forward(
        self, codes: Int64[Tensor, "batch length channels"], state: SashimiState | None = None
    ) -> tuple[Float[Tensor, "batch length width"], SashimiState | None]:
        """Hidden features that predict the frame after each of `codes`; state as in `Sashimi`."""
        if codes.shape[-1] != self.spec.n_channels:
            raise ValueError(
                f"This model reads {self.spec.n_channels} channels; got codes with {codes.shape[-1]}, shape "
                f"{tuple(codes.shape)}. Match `dataset` (is_stereo) to the model."
            )
        folded = rearrange(codes, "b l (s c) -> (b s) l c", s=self.n_sequences)
        hidden, state = self.backbone(self.embedding(folded), state)
        return rearrange(hidden, "(b s) l w -> b l (s w)", s=self.n_sequences), state

    def hidden_for(self, codes: Int64[Tensor, "batch length channels"]) -> Float[Tensor, "batch length width"]:
        """Features that predict each frame of `codes` from the frames before it, from the start of a track."""
        inputs = torch.cat([self.start_codes(codes.shape[0]), codes[:, :-1]], dim=1)
        hidden, _ = self(inputs)
        return hidden[:, self.config.pad_len :]

    def hidden_after(
        self,
        previous: Int64[Tensor, "batch 1 channels"],
        codes: Int64[Tensor, "batch length channels"],
        state: SashimiState,
    ) -> tuple[Float[Tensor, "batch length width"], SashimiState]:
        """Features that predict each frame of a segment, and the state for the segment that follows it.

        - `previous`: the frame before the segment, or `start_codes` at the start of a track (of `pad_len` 0).
        - `state`: what the segment before returned, or `initial_state`. It stands behind all frames before `previous`.
        """
        hidden, after = self(torch.cat([previous, codes[:, :-1]], dim=1), state)
        assert after is not None
        return hidden, after

    def reset_rows(self, state: SashimiState, rows: Bool[Tensor, "batch"]) -> SashimiState:
        """`state` with the rows that `rows` marks at the start of a track; raises as `models.sashimi.reset_rows`."""
        # The channels of a clip may be sequences of their own: (batch sequences) rows.
        return reset_rows(state, self.initial_state(len(rows)), rows.repeat_interleave(self.n_sequences))

    def finite_rows(self, state: SashimiState, batch_size: int) -> Bool[Tensor, "batch"]:
        """The rows of `state` without any NaN or infinity."""
        return finite_rows(state).view(batch_size, self.n_sequences).all(dim=1)

    def log_prob(self, codes: Int64[Tensor, "batch length channels"]) -> Float[Tensor, "batch length channels"]:
        """Log-probability in nats of each code given everything before it, from the start of a track."""
        return self.head.log_prob(self.hidden_for(codes), codes)
