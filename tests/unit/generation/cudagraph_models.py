"""Models, and what stands in for CUDA's capture, for the tests of CudaGraphEngine."""

import torch

from stereo_sashimi.models.language_model import LanguageModel, LanguageModelConfig
from stereo_sashimi.models.sashimi import SashimiConfig
from stereo_sashimi.nn.embedding import EmbeddingConfig
from stereo_sashimi.nn.freeze import freeze
from stereo_sashimi.nn.heads.head import CategoricalHeadConfig, DMLHeadConfig
from stereo_sashimi.nn.s4 import S4Config, S4DConfig
from stereo_sashimi.spec import AudioSpec

CATEGORICAL, DML = CategoricalHeadConfig(), DMLHeadConfig(n_mixtures=2)
COUPLED, COUPLED_DML = CategoricalHeadConfig("autoregressive"), DMLHeadConfig("autoregressive", n_mixtures=3)
# channels, merge, head, backbone
MODELS = {
    "mono": (1, "concat", CATEGORICAL, {}),
    "mono-dml": (1, "concat", DML, {"norm": "scalar"}),
    "stereo": (2, "concat", COUPLED, {}),
    "stereo-dml": (2, "sum", COUPLED_DML, {"layer": S4DConfig(d_state=4)}),
    "separate": (2, "none", CATEGORICAL, {"pool": (4,)}),
    "separate-dml": (2, "none", DML, {"pool": (3,)}),
    "unet": (2, "mix", DML, {"unet": True, "pool_weight_norm": True}),
    "flat": (2, "sum", CATEGORICAL, {"pool": ()}),
    "three": (2, "sum", DML, {"pool": (2, 2, 2)}),
}


class Again:
    """Stands in for `CudaGraphs`: a replay runs the work itself."""

    def __init__(self, device: torch.device) -> None:
        self.captured = 0

    def warm_up(self, work):
        work()

    def capture(self, work):
        self.captured += 1
        return work


def build(name: str, dtype=torch.float64, d_model: int = 4, **fields) -> LanguageModel:
    n_channels, merge, head, backbone = MODELS[name]
    torch.manual_seed(0)
    config = SashimiConfig(**({"n_layers": 1, "pool": (2, 3), "layer": S4Config(d_state=4)} | backbone))
    encoder = EmbeddingConfig(d_model, merge)
    model = LanguageModelConfig(AudioSpec(16000, n_channels, 8), encoder, config, head, **fields)
    return freeze(model.build().to(dtype))


def numbers(model: LanguageModel, batch_size: int, n_frames: int, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    shape = (batch_size, n_frames, model.spec.n_channels, model.head.n_uniforms)
    return torch.rand(shape, dtype=torch.float64, generator=g)
