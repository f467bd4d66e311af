"""Causality: a frame changes nothing before it; within a frame only a coupled channel reads the ones before it.

That the recurrent and the parallel form agree is in `test_chunking.py`.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.models.language_model_config import LanguageModelConfig
from stereo_sashimi.models.sashimi import SashimiConfig
from stereo_sashimi.nn.embedding import EmbeddingConfig
from stereo_sashimi.nn.heads.head import COUPLINGS, CategoricalHeadConfig, DMLHeadConfig
from stereo_sashimi.nn.s4 import S4Config, S4DConfig
from stereo_sashimi.spec import AudioSpec

LENGTH = 21  # no multiple of the pools
SILENT = 1e-12  # an FFT spreads round-off over all frames
HEADS = [CategoricalHeadConfig, DMLHeadConfig]

seeds = st.integers(0, 2**31)
# Fields, not configs: the shape checker of the tests draws random numbers, which a strategy must not.
backbones = st.fixed_dictionaries(
    {
        "d_model": st.just(4),
        "n_layers": st.just(1),
        "pool": st.sampled_from([(4,), (2, 2), (3, 2)]),
        "unet": st.booleans(),
        "norm": st.sampled_from(["layer", "scalar"]),
        "layer": st.sampled_from([S4Config(d_state=4, dt_min=0.1), S4DConfig(d_state=4, dt_min=0.1)]),
    }
)


def randomise(module: torch.nn.Module) -> None:
    """Move every parameter, so that no coupling is zero by its initialisation."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))


def build(config: SashimiConfig, head: CategoricalHeadConfig | DMLHeadConfig) -> LanguageModel:
    model = LanguageModelConfig(AudioSpec(16000, 2, 8), EmbeddingConfig(d_model=4), config, head).build()
    randomise(model)
    return model.double().eval()


@torch.no_grad()
@pytest.mark.parametrize("coupling", COUPLINGS)
@pytest.mark.parametrize("head", HEADS)
@given(config=backbones, t=st.integers(0, LENGTH - 2), channel=st.integers(0, 1), seed=seeds)
@settings(max_examples=6, deadline=None)
def test_log_prob_reads_earlier_codes_only(head, coupling, config, t, channel, seed):
    torch.manual_seed(seed)
    model = build(SashimiConfig(**config), head(coupling))
    codes = torch.randint(256, (1, LENGTH, 2))
    other = codes.clone()
    other[:, t, channel] = (codes[:, t, channel] + 128) % 256
    change = (model.log_prob(other) - model.log_prob(codes)).abs()[0]
    assert change[:t].le(SILENT).all()
    assert change[t, channel] > 1e-9, "the code's own probability did not change"
    assert change[t + 1].gt(1e-12).all(), "the next frame did not hear of it"
    sibling = 1 - channel
    if coupling == "autoregressive" and channel == 0:
        assert change[t, sibling] > 1e-9
    else:
        assert change[t, sibling] <= SILENT
