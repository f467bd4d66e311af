"""Every way of computing the S4 layers trains the same model as `backend=reference`: mono and stereo, all heads."""

import pytest
import torch

from stereo_sashimi.models.language_model_config import LanguageModelConfig
from stereo_sashimi.models.sashimi import SashimiConfig
from stereo_sashimi.nn.embedding import EmbeddingConfig
from stereo_sashimi.nn.heads.head import CategoricalHeadConfig, DMLHeadConfig
from stereo_sashimi.nn.s4 import S4Config, S4DConfig
from stereo_sashimi.spec import AudioSpec

CASES = {
    "mono, categorical": (1, 8, CategoricalHeadConfig(), S4Config()),
    "stereo, coupled categorical": (2, 8, CategoricalHeadConfig(coupling="autoregressive"), S4Config()),
    "stereo, dml": (2, 16, DMLHeadConfig(), S4Config()),
    "stereo, coupled dml, diagonal": (2, 16, DMLHeadConfig(coupling="autoregressive"), S4DConfig()),
}


def build(case, backend, clips=1):
    channels, bits, head, layer = CASES[case]
    torch.manual_seed(0)
    shape = SashimiConfig(d_model=8, n_layers=2, pool=(4, 4), norm="scalar", pool_weight_norm=True, layer=layer)
    model = LanguageModelConfig(AudioSpec(16000, channels, bits), EmbeddingConfig(8), shape, head).build(backend)
    return model, torch.randint(0, 2**bits, (clips, 160, channels))


def loss_of(model, codes):
    weight = torch.full(codes.shape[:2], 1 / codes.numel(), dtype=model.embedding.tables[0].weight.dtype)
    return model.loss(model.hidden_for(codes), codes, weight, model.head.can_rank)[0]


def others(case):
    return ["auto", "krylov"] + (["recurrent"] if CASES[case][3].kind == "s4" else [])


# One clip and several are computed in different ways.
@pytest.mark.parametrize(
    ("case", "clips"),
    [
        ("mono, categorical", 1),
        ("stereo, coupled categorical", 3),
        ("stereo, dml", 1),
        ("stereo, dml", 3),
        ("stereo, coupled dml, diagonal", 1),
        ("stereo, coupled dml, diagonal", 3),
    ],
)
def test_gradients_are_those_of_the_reference_backend(case, clips):
    """In float64 as good as equal; in float32 within 1e-4 and 1e-5 of the largest among parameters of one name.

    A scale or shift of a norm is one number, the sum of thousands that nearly cancel: alone it has no scale.
    """
    model, codes = build(case, "reference", clips)
    loss_of(model.double(), codes).backward()
    expected = {name: p.grad for name, p in model.named_parameters()}
    largest = dict.fromkeys(map(kind, expected), 0.0)
    for name, gradient in expected.items():
        largest[kind(name)] = max(largest[kind(name)], gradient.abs().max().item())
    for backend in others(case):
        for dtype, rtol, atol in ((torch.float64, 1e-8, 1e-10), (torch.float32, 1e-4, 1e-5)):
            fast, _ = build(case, backend, clips)
            loss_of(fast.to(dtype), codes).backward()
            for name, parameter in fast.named_parameters():
                error = (parameter.grad.double() - expected[name]).abs()
                assert (error <= rtol * expected[name].abs() + atol * largest[kind(name)]).all(), (backend, dtype, name)


def kind(name):
    return name.rsplit(".", 1)[-1]
