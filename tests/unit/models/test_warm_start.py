"""warm_start: on audio whose channels are alike, a stereo model begins as the mono model that it was given."""

import dataclasses
import itertools

import pytest
import torch

from stereo_sashimi.models.warm_start import warm_start
from stereo_sashimi.nn.heads.head import CategoricalHeadConfig, DMLHeadConfig
from stereo_sashimi.nn.s4 import S4Config, S4DConfig
from tiny_config import tiny_config

MERGES = ("concat", "sum", "mix", "none")
BACKBONES = {
    "paper": {"norm": "scalar", "pool_weight_norm": True},
    "unet-untied": {"n_layers": 2, "pool": (2,), "unet": True, "layer": S4Config(4, n_ssm=None)},
    "n_ssm-4": {"pool": (2,), "layer": S4Config(4, n_ssm=4)},
    "diagonal": {"pool": (3, 2), "layer": S4DConfig(4, n_ssm=2)},
}


def build(n_channels, merge="concat", decoder=None, model=BACKBONES["paper"], **spec):
    config = tiny_config(n_channels, merge, decoder, **model)
    built = dataclasses.replace(config, spec=dataclasses.replace(config.spec, **spec)).build().double().eval()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return built


# Each merge and coupling with both heads, each backbone with both heads and couplings.
@torch.no_grad()
@pytest.mark.parametrize(
    ("merge", "coupling", "decoder", "backbone"),
    [
        ("concat", "independent", CategoricalHeadConfig, "paper"),
        ("concat", "independent", DMLHeadConfig, "unet-untied"),
        ("concat", "autoregressive", CategoricalHeadConfig, "n_ssm-4"),
        ("concat", "autoregressive", DMLHeadConfig, "diagonal"),
        ("sum", "independent", CategoricalHeadConfig, "diagonal"),
        ("sum", "independent", DMLHeadConfig, "n_ssm-4"),
        ("sum", "autoregressive", CategoricalHeadConfig, "unet-untied"),
        ("sum", "autoregressive", DMLHeadConfig, "paper"),
        ("mix", "independent", CategoricalHeadConfig, "unet-untied"),
        ("mix", "independent", DMLHeadConfig, "paper"),
        ("mix", "autoregressive", CategoricalHeadConfig, "diagonal"),
        ("mix", "autoregressive", DMLHeadConfig, "n_ssm-4"),
        ("none", "independent", CategoricalHeadConfig, "n_ssm-4"),
        ("none", "independent", DMLHeadConfig, "diagonal"),
        ("none", "independent", CategoricalHeadConfig, "paper"),
        ("none", "independent", DMLHeadConfig, "unet-untied"),
    ],
)
def test_alike_channels_score_as_in_mono(merge, coupling, decoder, backbone):
    torch.manual_seed(0)
    mono = build(1, decoder=decoder(), model=BACKBONES[backbone])
    stereo = build(2, merge, decoder(coupling), BACKBONES[backbone])
    codes = torch.randint(256, (2, 25, 1))
    alike = codes.expand(-1, -1, 2)
    assert not torch.allclose(stereo.log_prob(alike), mono.log_prob(codes).expand(-1, -1, 2))
    warm_start(stereo, mono)
    torch.testing.assert_close(stereo.log_prob(alike), mono.log_prob(codes).expand(-1, -1, 2), rtol=0, atol=1e-9)


@torch.no_grad()
def test_without_merge_any_stereo_scores_as_two_mono_signals():
    mono, separate = build(1), build(2, "none")
    warm_start(separate, mono)
    codes = torch.randint(256, (2, 25, 2))
    expected = torch.cat([mono.log_prob(codes[..., c : c + 1]) for c in (0, 1)], dim=-1)
    torch.testing.assert_close(separate.log_prob(codes), expected, rtol=0, atol=1e-9)
    joint = build(2)
    warm_start(joint, separate)
    torch.testing.assert_close(joint.log_prob(codes[..., [0, 0]])[..., :1], expected[..., :1], rtol=0, atol=1e-9)


def test_behind_concat_a_channel_starts_without_the_other_but_can_learn_of_it():
    mono, stereo = build(1, model=BACKBONES["unet-untied"]), build(2, model=BACKBONES["unet-untied"])
    warm_start(stereo, mono)
    stereo.log_prob(torch.randint(256, (1, 25, 2))).sum().backward()
    linear = stereo.backbone.center[1].layer.input
    height, width = linear.out_features // 2, linear.in_features // 2
    assert linear.weight[:height, width:].eq(0).all()
    assert linear.weight.grad[:height, width:].ne(0).all()


@torch.no_grad()
def test_the_same_shape_is_copied_whole():
    source, target = build(2, "sum", DMLHeadConfig("autoregressive")), build(2, "sum", DMLHeadConfig("autoregressive"))
    warm_start(target, source)
    for name, tensor in target.state_dict().items():
        assert torch.equal(tensor, source.state_dict()[name]), name


def test_rate_dropout_and_padding_may_differ():
    source = build(1, model=BACKBONES["paper"] | {"dropout": 0.1}, sample_rate=8000)
    warm_start(build(2), source)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"bits": 16}, "init_from holds a model with dataset.bits=16; this run has 8"),
        ({"quantization": "mu-law"}, "dataset.quantization='mu-law'"),
        ({"decoder": DMLHeadConfig()}, "decoder='dml'"),
        ({"n_channels": 2, "merge": "sum"}, "2 channels with encoder.merge=sum .* this run has 2 with concat"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(value),
)
def test_what_does_not_fit_is_named(source, message):
    with pytest.raises(ValueError, match=message):
        warm_start(build(2), build(**({"n_channels": 1} | source)))


def test_a_refused_source_leaves_the_model_as_it_was():
    model = build(2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match="decoder='dml'"):
        warm_start(model, build(1, decoder=DMLHeadConfig(n_mixtures=3)))
    assert all(itertools.starmap(torch.equal, zip(before.values(), model.state_dict().values(), strict=True)))


@torch.no_grad()
@pytest.mark.parametrize("merge", MERGES)
def test_a_mono_model_with_a_mix_gives_its_mix_along(merge):
    mono, stereo = build(1, "mix"), build(2, merge)
    warm_start(stereo, mono)
    codes = torch.randint(256, (2, 25, 1))
    alike = codes.expand(-1, -1, 2)
    torch.testing.assert_close(stereo.log_prob(alike), mono.log_prob(codes).expand(-1, -1, 2), rtol=0, atol=1e-9)
