"""Descriptions of models that cost little to build, for tests of any folder."""

from typing import Any

from stereo_sashimi.models.language_model_config import LanguageModelConfig
from stereo_sashimi.models.sashimi import SashimiConfig
from stereo_sashimi.nn import CategoricalHeadConfig, EmbeddingConfig, S4Config, S4DConfig
from stereo_sashimi.spec import AudioSpec

S4, S4D = S4Config(d_state=4), S4DConfig(d_state=4)


def tiny_backbone(**fields: Any) -> SashimiConfig:
    return SashimiConfig(**{"d_model": 4, "n_layers": 1, "pool": (2, 2), "layer": S4} | fields)


def tiny_config(
    n_channels: int = 2, merge: str = "concat", head: Any = None, bits: int = 8, pad_len: int = 0, **backbone: Any
) -> LanguageModelConfig:
    """A categorical 8-bit stereo model at 44.1 kHz, or what the arguments say."""
    spec, shape = AudioSpec(44100, n_channels, bits), tiny_backbone(**backbone)
    return LanguageModelConfig(
        spec, EmbeddingConfig(shape.d_model, merge), shape, head or CategoricalHeadConfig(), pad_len
    )
