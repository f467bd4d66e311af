"""What test_export.py and test_exported_damage.py share."""

import torch

from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.models.language_model_config import LanguageModelConfig
from stereo_sashimi.models.sashimi import SashimiConfig
from stereo_sashimi.nn.embedding import EmbeddingConfig
from stereo_sashimi.nn.heads.head import DMLHeadConfig
from stereo_sashimi.nn.s4 import S4DConfig
from stereo_sashimi.spec import AudioSpec


def make(n_channels=2, merge="concat", decoder=None, layer=None, unet=False) -> LanguageModel:
    torch.manual_seed(1)
    backbone = SashimiConfig(d_model=4, n_layers=1, pool=(2,), unet=unet, layer=layer or S4DConfig(d_state=4))
    decoder = decoder or DMLHeadConfig("independent", n_mixtures=2)
    config = LanguageModelConfig(AudioSpec(44100, n_channels, 8), EmbeddingConfig(4, merge), backbone, decoder, 2)
    return config.build().eval()


def same_bits(first: LanguageModel, second: LanguageModel) -> bool:
    codes = torch.randint(256, (2, 11, first.spec.n_channels))
    with torch.no_grad():
        return torch.equal(first.log_prob(codes), second.log_prob(codes))
