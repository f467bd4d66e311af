"""Float64 models of four kinds that cost little to build, and noise to score and to continue."""

import numpy as np
import torch

from small_experts import TINY as EXPERTS
from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.models.language_model_config import LanguageModelConfig
from stereo_sashimi.models.sashimi import SashimiConfig
from stereo_sashimi.nn.embedding import EmbeddingConfig
from stereo_sashimi.nn.heads.head import CategoricalHeadConfig, DMLHeadConfig, ExpertHeadConfig
from stereo_sashimi.nn.s4 import S4Config, S4DConfig
from stereo_sashimi.spec import AudioSpec

CASES = {
    "mono": (1, "concat", CategoricalHeadConfig(), S4Config(d_state=4)),
    "stereo": (2, "concat", CategoricalHeadConfig("autoregressive"), S4Config(d_state=4)),
    "stereo-dml": (2, "sum", DMLHeadConfig("autoregressive", n_mixtures=2), S4DConfig(d_state=4)),
    "experts": (2, "mix", ExpertHeadConfig(d_hidden=3), S4Config(d_state=4)),
    "separate": (2, "none", DMLHeadConfig("independent", n_mixtures=2), S4DConfig(d_state=4)),
}


def tiny(case: str, pad_len: int = 0, **spec) -> LanguageModel:
    n_channels, merge, head, layer = CASES[case]
    torch.manual_seed(0)
    backbone = SashimiConfig(d_model=4, n_layers=1, pool=(2, 2), layer=layer)
    audio = AudioSpec(**({"sample_rate": 1000, "n_channels": n_channels, "bits": 8} | spec))
    experts = EXPERTS if isinstance(head, ExpertHeadConfig) else None
    config = LanguageModelConfig(audio, EmbeddingConfig(4, merge), backbone, head, pad_len, experts)
    return config.build().double().eval()


def noise(model: LanguageModel, frames: int = 50) -> np.ndarray:
    rng = np.random.default_rng(frames)
    return rng.integers(-9000, 9000, (frames, model.spec.n_channels)).astype(np.int16)


@torch.no_grad()
def nats_of(model: LanguageModel, codes: np.ndarray) -> np.ndarray:
    """-log p of codes (frames, channels) by the model's own `log_prob`."""
    return -model.log_prob(torch.from_numpy(codes)[None])[0].numpy()
