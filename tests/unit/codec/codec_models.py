"""Small models of every kind that the codec knows, with weights that make their distributions uneven."""

import numpy as np
import torch

from small_experts import SMALL as EXPERTS
from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.models.language_model_config import LanguageModelConfig
from stereo_sashimi.models.no_backbone import NoBackboneConfig
from stereo_sashimi.models.sashimi import SashimiConfig
from stereo_sashimi.nn.embedding import EmbeddingConfig
from stereo_sashimi.nn.heads.head import CategoricalHeadConfig, DMLHeadConfig, ExpertHeadConfig
from stereo_sashimi.nn.s4 import S4Config
from stereo_sashimi.spec import AudioSpec

# channels, bits, head, coupling, merge
CASES = {
    "mono-16-dml": (1, 16, "dml", "independent", "sum"),
    "stereo-16-dml": (2, 16, "dml", "independent", "sum"),
    "stereo-16-dml-coupled": (2, 16, "dml", "autoregressive", "concat"),
    "mono-8-dml": (1, 8, "dml", "independent", "sum"),
    "stereo-8-dml-coupled": (2, 8, "dml", "autoregressive", "mix"),
    "mono-8-categorical": (1, 8, "categorical", "independent", "sum"),
    "stereo-8-categorical": (2, 8, "categorical", "independent", "sum"),
    "stereo-8-categorical-coupled": (2, 8, "categorical", "autoregressive", "sum"),
    "stereo-8-separate": (2, 8, "categorical", "independent", "none"),
    "stereo-16-separate": (2, 16, "dml", "independent", "none"),
    "stereo-16-categorical-coupled": (2, 16, "categorical", "autoregressive", "sum"),
    "stereo-16-experts": (2, 16, "experts", "autoregressive", "mix"),
    "mono-16-experts-alone": (1, 16, "experts alone", "independent", "sum"),
    "stereo-16-experts-alone": (2, 16, "experts alone", "autoregressive", "sum"),
    "stereo-8-experts-alone": (2, 8, "experts alone", "autoregressive", "sum"),
}


def small(case: str, d_model: int = 8, d_state: int = 64) -> LanguageModel:
    channels, bits, kind, coupling, merge = CASES[case]
    torch.manual_seed(1)
    heads = {"dml": DMLHeadConfig(coupling, n_mixtures=3), "categorical": CategoricalHeadConfig(coupling)}
    head, backbone = heads.get(kind, ExpertHeadConfig(coupling, 7)), NoBackboneConfig()
    if kind != "experts alone":
        layer = S4Config(d_state=d_state)
        backbone = SashimiConfig(d_model=d_model, n_layers=1, pool=(2, 2), norm="layer", layer=layer)
    table = "waveform" if bits == 16 else "free"
    config = LanguageModelConfig(
        spec=AudioSpec(44100, channels, bits),
        encoder=EmbeddingConfig(d_model=d_model, merge=merge, table=table),
        model=backbone,
        decoder=head,
        experts=None if kind in heads else EXPERTS,
    )
    model = config.build().eval()
    lsb = torch.arange(model.spec.n_levels) - model.spec.start_code
    with torch.no_grad():
        for name, parameter in model.head.named_parameters():
            # Also what starts at 0, as couplings do, shall have an effect.
            parameter.add_(0.05 * torch.randn_like(parameter))
            # Narrow, around silence: better than PCM for soft recordings.
            if "channels." in name and kind == "dml":
                _, means, log_scales = parameter.chunk(3)
                means.mul_(0.02)
                if name.endswith("bias"):
                    log_scales.fill_(-4.5 if bits == 16 else -2.5)
            elif "channels" in name and name.endswith("bias") and kind == "categorical":
                parameter.sub_(lsb.abs() / (300 if bits == 16 else 10))
    return model


def music(frames: int, spec: AudioSpec, seed: int = 0) -> np.ndarray:
    """A soft recording, int16 (frames, channels)."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(0, 60, (frames, spec.n_channels))
    pcm = np.cumsum(steps, 0).round().clip(-900, 900).astype(np.int16)
    return (pcm // 60) << 8 if spec.bits == 8 else pcm
