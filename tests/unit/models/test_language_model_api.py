"""LanguageModel and its description: plain round trips, start codes, shapes, mono and stereo, no mutation."""

import copy
import dataclasses
import itertools
import json
import re

import pytest
import torch

from stereo_sashimi.models import weights
from stereo_sashimi.models.language_model_config import LanguageModelConfig
from stereo_sashimi.models.sashimi import SashimiConfig
from stereo_sashimi.nn.embedding import EmbeddingConfig
from stereo_sashimi.nn.heads.head import COUPLINGS, CategoricalHeadConfig, DMLHeadConfig
from stereo_sashimi.nn.s4 import S4DConfig
from stereo_sashimi.spec import AudioSpec
from tiny_config import tiny_config

HEADS = [
    *(CategoricalHeadConfig(coupling) for coupling in COUPLINGS),
    *(DMLHeadConfig(coupling, n_mixtures=2) for coupling in COUPLINGS),
]


def describe(n_channels: int = 2, merge: str = "concat", decoder=HEADS[0]) -> LanguageModelConfig:
    return tiny_config(n_channels, merge, decoder)


every_head = pytest.mark.parametrize("head", HEADS, ids=lambda head: f"{head.kind}-{head.coupling}")


def test_every_description_survives_json():
    specs = [AudioSpec(44100, 2, 16), AudioSpec(16000, 1, 8, "mu-law", "minmax")]
    encoders = [EmbeddingConfig(), EmbeddingConfig(8, "sum", "waveform")]
    backbones = [
        SashimiConfig(),
        SashimiConfig(8, 2, (3, 2), 3, 1, True, "scalar", True, 0.1, 0.2, S4DConfig(8, None, init="inv")),
    ]
    for parts in itertools.product(specs, encoders, backbones, HEADS):
        config = LanguageModelConfig(*parts)
        plain = json.loads(json.dumps(config.to_plain(), allow_nan=False))
        assert LanguageModelConfig.from_plain(plain) == config
        assert "_target_" not in json.dumps(plain)
        assert "stereo_sashimi" not in json.dumps(plain), "a description names code"


@pytest.mark.parametrize(
    ("place", "fields", "message"),
    [
        ("encoder", {"dmodel": 4}, r"Unknown key encoder\.dmodel.*Did you mean encoder\.d_model"),
        ("model", {"n_layer": 4}, r"Unknown key model\.n_layer"),
        ("model", {"layer": {"kind": "s4d", "initial": "lin"}}, r"Unknown key model\.layer\.initial"),
        ("decoder", {"kind": "sequence"}, r"decoder\.kind must be one of categorical, dml, experts; got 'sequence'"),
        ("decoder", {"coupling": "none"}, r"decoder\.coupling must be one of"),
    ],
)
def test_a_wrong_field_is_refused_with_its_full_name(place, fields, message):
    plain = describe().to_plain()
    plain[place] |= fields
    with pytest.raises(ValueError, match=message):
        LanguageModelConfig.from_plain(plain)


@pytest.mark.parametrize("change", [{"extra": {}}, {"spec": None}], ids=str)
def test_a_description_holds_exactly_four_parts(change):
    plain = describe().to_plain() | change
    plain = {key: value for key, value in plain.items() if value is not None}
    for data in (plain, None, [1]):
        with pytest.raises(ValueError, match="exactly: spec, encoder, model, decoder"):
            LanguageModelConfig.from_plain(data)


@pytest.mark.parametrize(("merge", "n_channels", "width"), [("concat", 1, 4), ("concat", 2, 8), ("sum", 2, 4)])
def test_the_embedding_sizes_the_backbone_and_the_head(merge, n_channels, width):
    model = describe(n_channels, merge).build()
    assert model.backbone.width == width
    assert all(channel.in_features == width for channel in model.head.channels)
    codes = torch.randint(256, (2, 5, n_channels))
    hidden, none = model(codes)
    assert none is None
    assert hidden.shape == (2, 5, width)
    assert model.log_prob(codes).shape == (2, 5, n_channels)


@torch.no_grad()
def test_inputs_are_the_codes_one_frame_late_after_the_start_code():
    model = describe().build().double().eval()
    codes = torch.randint(256, (2, 6, 2))
    start = model.start_codes(2)
    assert start.shape == (2, 1, 2)
    assert start.eq(128).all()
    hidden, _ = model(torch.cat([start, codes[:, :-1]], dim=1))
    torch.testing.assert_close(model.hidden_for(codes), hidden)
    torch.testing.assert_close(model.log_prob(codes), model.score(hidden, codes).log_prob)


@torch.no_grad()
def test_n_start_codes_warm_the_state_up():
    model = dataclasses.replace(describe(), pad_len=4).build().double().eval()
    plain = describe().build().double().eval()
    plain.load_state_dict(model.state_dict())
    codes = torch.randint(256, (2, 6, 2))
    padded, _ = model(torch.cat([torch.full((2, 5, 2), 128), codes[:, :-1]], dim=1))
    assert model.hidden_for(codes).shape == (2, 6, 8)
    torch.testing.assert_close(model.hidden_for(codes), padded[:, 4:], rtol=0, atol=1e-11)
    assert not torch.allclose(model.hidden_for(codes), plain.hidden_for(codes))


@torch.no_grad()
@every_head
@pytest.mark.parametrize("train", [True, False])
def test_forward_and_log_prob_mutate_nothing(head, train):
    model = describe(decoder=head).build().train(train)
    before = copy.deepcopy(model.state_dict())
    codes = torch.randint(256, (2, 7, 2))
    kept = codes.clone()
    assert torch.equal(model.log_prob(codes), model.log_prob(codes))
    assert torch.equal(model(codes)[0], model(codes)[0])
    assert torch.equal(codes, kept)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@torch.no_grad()
@pytest.mark.parametrize("head", [CategoricalHeadConfig(), DMLHeadConfig(n_mixtures=2)], ids=lambda head: head.kind)
def test_without_merge_every_channel_is_a_mono_sequence(head):
    stereo, mono = describe(2, "none", head).build().double().eval(), describe(1, "none", head).build().double().eval()
    mono.load_state_dict(stereo.state_dict())
    codes = torch.randint(256, (3, 11, 2))
    score = stereo.score(stereo.hidden_for(codes), codes, with_rank=True)
    for c in (0, 1):
        alone = mono.score(mono.hidden_for(codes[..., c : c + 1]), codes[..., c : c + 1], with_rank=True)
        torch.testing.assert_close(score.log_prob[..., c : c + 1], alone.log_prob, rtol=0, atol=1e-9)
        assert torch.equal(score.rank[..., c : c + 1], alone.rank)
    mass = stereo.log_mass(stereo.hidden_for(codes), None, 1).exp().sum(-1)
    torch.testing.assert_close(mass, torch.ones_like(mass), rtol=0, atol=1e-9)


def test_old_names_of_weights_load(tmp_path):
    """With merge=none they began with `head.mono.`, in files and in the checkpoints that a run resumes from."""
    model = describe(2, "none").build()
    old = {re.sub(r"^head\.", "head.mono.", name): tensor for name, tensor in model.state_dict().items()}
    assert set(old) != set(model.state_dict())
    other = torch.nn.ModuleDict({"model": describe(2, "none").build()})
    other.load_state_dict({f"model.{name}": tensor for name, tensor in old.items()})
    for loaded in (other["model"], weights.build(model.config, old, "here", "auto")):
        assert all(torch.equal(t, loaded.state_dict()[name]) for name, t in model.state_dict().items())


def test_channels_of_their_own_cannot_be_coupled():
    with pytest.raises(ValueError, match=r"decoder\.coupling=autoregressive.*encoder\.merge=none"):
        describe(2, "none", CategoricalHeadConfig("autoregressive"))


def test_codes_with_another_number_of_channels_are_refused():
    with pytest.raises(ValueError, match="is_stereo"):
        describe(n_channels=2).build()(torch.zeros(1, 3, 1, dtype=torch.int64))
