"""Small models of every kind for the tests of engines, with parameters of which none is trivial."""

import torch

from small_experts import SMALL as EXPERTS
from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.models.language_model_config import HeadConfig, LanguageModelConfig
from stereo_sashimi.models.no_backbone import NoBackboneConfig
from stereo_sashimi.models.sashimi import SashimiConfig
from stereo_sashimi.nn.embedding import EmbeddingConfig
from stereo_sashimi.nn.heads.head import CategoricalHeadConfig, DMLHeadConfig, ExpertHeadConfig
from stereo_sashimi.nn.s4 import S4Config, S4DConfig
from stereo_sashimi.spec import AudioSpec

CATEGORICAL, COUPLED = CategoricalHeadConfig(), CategoricalHeadConfig("autoregressive")
DML, COUPLED_DML = DMLHeadConfig(n_mixtures=3), DMLHeadConfig("autoregressive", n_mixtures=5)
S4, S4D = S4Config(d_state=6), S4DConfig(d_state=4)
# channels, merge, head, layer, and what else differs from the small default.
CASES: dict[str, tuple[int, str, HeadConfig, S4Config, dict]] = {
    "mono": (1, "concat", CATEGORICAL, S4, {}),
    "mono dml, diagonal": (1, "concat", DML, S4D, {"d_model": 20}),
    "concat": (2, "concat", CATEGORICAL, S4, {"norm": "scalar", "pool_weight_norm": True}),
    "concat coupled": (2, "concat", COUPLED, S4D, {"d_model": 24}),
    "sum dml": (2, "sum", COUPLED_DML, S4, {"d_model": 32}),
    "mix unet": (2, "mix", COUPLED, S4, {"unet": True}),
    "unet dml": (2, "concat", COUPLED_DML, S4D, {"unet": True, "n_layers": 2, "d_model": 17}),
    "none": (2, "none", DML, S4, {}),
    "none categorical": (2, "none", CATEGORICAL, S4D, {"unet": True}),
    "one level": (2, "sum", DML, S4, {"pool": ()}),
    "experts": (2, "mix", ExpertHeadConfig(d_hidden=7), S4, {"d_model": 12}),
    "experts, mono": (1, "concat", ExpertHeadConfig(d_hidden=5), S4D, {}),
    "experts alone": (2, "mix", ExpertHeadConfig("independent", 9), S4, {"alone": True}),
    "one pool": (1, "concat", CATEGORICAL, S4, {"pool": (5,), "expand": 3, "ff": 3}),
}


def small(case: str, bits: int = 8, seed: int = 0, pad_len: int = 0, **changes) -> LanguageModel:
    """The model of a case, in float32 and evaluation mode."""
    n_channels, merge, head, layer, other = CASES[case]
    torch.manual_seed(seed)
    own = {"d_model": 8, "n_layers": 1, "pool": (2, 3), "layer": layer} | other | changes
    backbone = NoBackboneConfig() if own.pop("alone", False) else SashimiConfig(**own)
    embedding = EmbeddingConfig(own["d_model"], merge)
    experts = EXPERTS if isinstance(head, ExpertHeadConfig) else None
    config = LanguageModelConfig(AudioSpec(16000, n_channels, bits), embedding, backbone, head, pad_len, experts)
    model = config.build().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def numbers(model: LanguageModel, batch_size: int, n_frames: int, seed: int = 0) -> torch.Tensor:
    """Uniform numbers for `Engine.draw`."""
    shape = (batch_size, n_frames, model.spec.n_channels, model.head.n_uniforms)
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
