"""LanguageModelConfig: the description of a model, which checkpoints and exported models hold."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stereo_sashimi.experts.plan import ExpertsConfig
from stereo_sashimi.models.no_backbone import NoBackboneConfig
from stereo_sashimi.models.sashimi import SashimiConfig
from stereo_sashimi.nn.embedding import EmbeddingConfig
from stereo_sashimi.nn.heads.head import CategoricalHeadConfig, DMLHeadConfig, ExpertHeadConfig
from stereo_sashimi.schema import from_plain, to_plain
from stereo_sashimi.spec import AudioSpec

if TYPE_CHECKING:
    from stereo_sashimi.models.language_model import LanguageModel

BackboneConfig = SashimiConfig | NoBackboneConfig
HeadConfig = CategoricalHeadConfig | DMLHeadConfig | ExpertHeadConfig


@dataclass(frozen=True)
class LanguageModelConfig:
    """Everything that rebuilds a model: the audio it reads, encoder, backbone and decoder. Saved in checkpoints.

    `pad_len`: a track begins with 1 + pad_len start codes, in training, scoring and sampling alike.
    `experts`: what `decoder` starts from, if it is an ExpertHeadConfig; else None.

    Raises ValueError for parts that do not fit together.
    """

    spec: AudioSpec
    encoder: EmbeddingConfig = field(default_factory=EmbeddingConfig)
    model: BackboneConfig = field(default_factory=SashimiConfig)
    decoder: HeadConfig = field(default_factory=CategoricalHeadConfig)
    pad_len: int = 0
    experts: ExpertsConfig | None = None

    def __post_init__(self) -> None:
        if self.pad_len < 0:
            raise ValueError(f"dataset.pad_len must be 0 or more, or null; got {self.pad_len}.")
        if self.encoder.separate and self.decoder.coupling != "independent":
            raise ValueError(
                f"decoder.coupling={self.decoder.coupling} needs channels that know of each other, but "
                "encoder.merge=none makes each a sequence of its own. Use encoder.merge=concat, sum or mix."
            )
        if (self.experts is not None) != isinstance(self.decoder, ExpertHeadConfig):
            raise ValueError(
                "experts=adaptive and decoder=experts need each other: that head starts from what the experts say. Set "
                f"both or neither; got experts={'null' if self.experts is None else 'adaptive'} and "
                f"decoder={self.decoder.kind}."
            )
        if self.spec.bits > 16 and not isinstance(self.model, NoBackboneConfig):
            raise ValueError("A network has a table of all codes, of 8 or 16 bits; 24 bits need model=none.")
        if self.experts is None and isinstance(self.model, NoBackboneConfig):
            raise ValueError("model=none is the experts and their head alone. Set experts=adaptive decoder=experts.")
        if self.experts is not None and self.spec.quantization != "linear":
            raise ValueError(
                f"experts=adaptive predicts amplitudes linearly, and dataset.quantization={self.spec.quantization} "
                "bends them. Use dataset.quantization=linear, or experts=null."
            )
        if self.experts is not None and self.encoder.separate:
            raise ValueError(
                "experts=adaptive reads all channels, and encoder.merge=none keeps each apart. Use encoder.merge=mix; "
                "with decoder.coupling=independent channels do not see each other's codes of a frame."
            )

    def build(self, backend: str = "auto", activation_checkpointing: bool = False) -> "LanguageModel":
        """A freshly initialised model; `backend` and `activation_checkpointing` as in `Sashimi`."""
        from stereo_sashimi.models.language_model import LanguageModel

        return LanguageModel(self, backend, activation_checkpointing)

    def to_plain(self) -> dict[str, Any]:
        """Plain fields only, no class paths."""
        plain: dict[str, Any] = to_plain(self)
        if self.experts is None:
            # As models were described before there were any.
            del plain["experts"]
        return plain

    @classmethod
    def from_plain(cls, data: Any) -> "LanguageModelConfig":
        """Validate plain fields. Raises ValueError naming the first field that is wrong."""
        if not isinstance(data, dict) or set(data) - {"experts"} != {"spec", "encoder", "model", "decoder", "pad_len"}:
            raise ValueError("A model description must hold exactly: spec, encoder, model, decoder, pad_len.")
        # Only NoBackbone has a `kind` among its fields.
        nothing = isinstance(data["model"], dict) and "kind" in data["model"]
        return cls(
            spec=from_plain(data["spec"], (AudioSpec,), "spec"),
            encoder=from_plain(data["encoder"], (EmbeddingConfig,), "encoder"),
            model=from_plain(data["model"], (NoBackboneConfig if nothing else SashimiConfig,), "model"),
            decoder=from_plain(data["decoder"], (CategoricalHeadConfig, DMLHeadConfig, ExpertHeadConfig), "decoder"),
            pad_len=data["pad_len"],
            experts=from_plain(data["experts"], (ExpertsConfig,), "experts") if "experts" in data else None,
        )
