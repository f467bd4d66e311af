"""Models over adaptive experts: what they are before training, the laws, and what does not go together."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import stereo_sashimi
from small_experts import TINY as EXPERTS
from stereo_sashimi.distributions import logistic_mixture as dml
from stereo_sashimi.experts.adaptive import experts_of
from stereo_sashimi.experts.plan import ASKED, POSITION
from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.models.language_model_config import LanguageModelConfig
from stereo_sashimi.models.no_backbone import NoBackboneConfig
from stereo_sashimi.models.sashimi import SashimiConfig, SashimiState
from stereo_sashimi.models.warm_start import warm_start
from stereo_sashimi.nn import DMLHeadConfig, EmbeddingConfig, ExpertHeadConfig, S4Config
from stereo_sashimi.spec import AudioSpec

NETWORK = SashimiConfig(d_model=4, n_layers=1, pool=(2, 2), layer=S4Config(d_state=4))
COUPLED, APART = ExpertHeadConfig(d_hidden=5), ExpertHeadConfig("independent", 5)


def described(backbone=NETWORK, head=COUPLED, channels=2, bits=16, **fields) -> LanguageModelConfig:
    spec = AudioSpec(44100, channels, bits)
    return LanguageModelConfig(spec, EmbeddingConfig(4, merge="mix"), backbone, head, **{"experts": EXPERTS} | fields)


def build(*args, moved: float = 0.1, **fields) -> LanguageModel:
    torch.manual_seed(0)
    model = described(*args, **fields).build()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(moved * torch.randn_like(parameter))
    return model.double().eval()


def music(model: LanguageModel, length: int = 40, rows: int = 2, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    t = torch.arange(length).view(1, -1, 1) * torch.tensor([0.3, 0.4])[: model.spec.n_channels]
    size = model.spec.n_levels / 8
    x = size * (torch.sin(t) + 0.2 * torch.randn(rows, length, model.spec.n_channels, generator=g))
    return (x.round() + model.spec.start_code).long().clamp(0, model.spec.n_levels - 1)


each_model = pytest.mark.parametrize(
    "fields",
    [
        {},
        {"channels": 1},
        {"head": APART},
        {"backbone": NoBackboneConfig()},
        {"backbone": NoBackboneConfig(), "head": APART, "pad_len": 3},
        {"pad_len": 3, "bits": 8},
    ],
    ids=["stereo", "mono", "apart", "alone", "alone, apart, padded", "8 bit, padded"],
)


@torch.no_grad()
@pytest.mark.parametrize("backbone", [NETWORK, NoBackboneConfig()], ids=["network", "alone"])
def test_before_training_it_says_what_the_experts_say(backbone):
    model = build(backbone, moved=0.0)
    codes = music(model)
    said, _ = model.experts.predict(torch.cat([model.start_codes(2), codes], dim=1))
    reference = experts_of(said[:, 1:].double()).reference
    alone = dml.log_prob(torch.zeros(*codes.shape, 48, dtype=torch.float64), codes, 65536, reference)
    torch.testing.assert_close(model.log_prob(codes), alone)


@torch.no_grad()
@each_model
def test_any_segments_score_like_the_whole(fields):
    model = build(**fields)
    codes = music(model)
    whole = model.log_prob(codes)
    if not model.config.pad_len:
        for length in (1, 7, 40):
            state, previous, parts = model.initial_state(2), model.start_codes(2), []
            for part in codes.split(length, dim=1):
                hidden, state = model.hidden_after(previous, part, state)
                parts.append(model.score(hidden, part).log_prob)
                previous = part[:, -1:]
            torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=0, atol=1e-9)
    for length in (1, 9):
        stream, parts = stereo_sashimi.Stream(model, 2, "reference"), []
        for part in codes.split(length, dim=1):
            parts.append(stream.prefill(part))
        torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=0, atol=1e-9)


@torch.no_grad()
@each_model
def test_what_is_drawn_has_the_probability_that_it_is_scored_with(fields):
    model = build(**fields)
    stream = stereo_sashimi.Stream(model, 2, "reference")
    (frames,) = stream.generate(25, seeds=[1, 2], frames_at_once=25)
    torch.testing.assert_close(model.log_prob(frames.codes), frames.log_prob, rtol=0, atol=1e-9)


@torch.no_grad()
@each_model
def test_a_warm_up_is_a_track_that_went_before(fields):
    """Experts have read it; without a network that is all there is to know."""
    model = build(**fields)
    codes, n = music(model), 1 + model.config.pad_len
    blank = torch.full_like(codes, model.spec.start_code)[:, :n]
    same = model.hidden_for(codes, blank)
    assert torch.equal(same, model.hidden_for(codes))
    warm = model.hidden_for(codes[:, 20:], torch.cat([blank, codes[:, :20]], dim=1))
    own = model.backbone.width
    assert torch.equal(warm[..., own:], same[:, 20:, own:])


@torch.no_grad()
@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 2**31), gain=st.floats(0, 20), channels=st.integers(1, 2), bits=st.sampled_from([8, 16]),
    head=st.sampled_from([COUPLED, APART]),
)  # fmt: skip
def test_masses_sum_to_one(seed, gain, channels, bits, head):
    model = build(NoBackboneConfig(), head, channels, bits, moved=0.0)
    torch.manual_seed(seed)
    for parameter in model.parameters():
        parameter.normal_(std=0.1 + gain / 10)
    codes = music(model, 12, 1, seed)
    codes[0, 6] = (0, model.spec.n_levels - 1)[seed % 2]
    hidden, part = model.hidden_for(codes), slice(5, 9)
    log_prob = model.score(hidden, codes).log_prob
    for c in range(channels):
        masses = model.log_mass(hidden[:, part], codes[:, part, :c], c)
        assert (masses.exp().sum(-1) - 1).abs().max() < 1e-9
        at_code = masses.gather(-1, codes[:, part, c : c + 1]).squeeze(-1)
        torch.testing.assert_close(log_prob[:, part, c], at_code, rtol=1e-6, atol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("head", [COUPLED, APART], ids=["coupled", "apart"])
def test_right_sees_left_and_nothing_sees_what_comes_later(head):
    model = build(head=head)
    codes = music(model, rows=1)
    before = model.log_prob(codes)
    for channel in (0, 1):
        changed = codes.clone()
        changed[0, 20, channel] += 500
        moved = (model.log_prob(changed) - before).abs() > 1e-12
        assert not moved[:, :20].any()
        assert moved[0, 20].tolist() == [channel == 0, channel == 1 or head is COUPLED]
        assert moved[0, 21].any()


def test_gradients_reach_every_parameter_and_none_is_lost():
    model = build().train()
    codes = music(model, 24)
    hidden = model.hidden_for(codes)
    weight = torch.full(codes.shape[:2], 1 / codes.numel(), dtype=torch.float64)
    loss, _ = model.loss(hidden, codes, weight, False)
    loss.backward()
    torch.testing.assert_close(loss.detach(), -model.log_prob(codes).mean().detach())
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in model.parameters())


@torch.no_grad()
def test_rows_begin_anew_with_their_experts():
    model = build()
    _, state = model.hidden_after(model.start_codes(2), music(model), model.initial_state(2))
    after = model.reset_rows(state, torch.tensor([True, False]))
    assert torch.equal(after.layers[-1][0], model.initial_state(1).layers[-1][0])
    assert torch.equal(after.layers[-1][1], state.layers[-1][1])
    assert model.finite_rows(after, 2).tolist() == [True, True]


def test_a_state_that_is_none_is_refused_before_a_loop_follows_it():
    model = build()
    phase, layers = model.initial_state(2)
    for place, value in ((POSITION, 1e9), (POSITION, -1.0), (POSITION, 0.5), (POSITION, float("nan")), (ASKED, -9.0)):
        wrong = layers[-1].clone()
        wrong[1, place] = value
        with pytest.raises(ValueError, match="no state of experts"):
            model(music(model), SashimiState(phase, (*layers[:-1], wrong)))
    with pytest.raises(ValueError, match="this state has shape"):
        model(music(model), SashimiState(phase, (*layers[:-1], layers[-1][:, :-1])))


def test_it_is_saved_and_loaded(tmp_path):
    for backbone in (NETWORK, NoBackboneConfig()):
        model = build(backbone).float()
        folder = tmp_path / backbone.__class__.__name__
        stereo_sashimi.save(model, folder)
        found = stereo_sashimi.load(folder)
        assert found.config == model.config
        codes = music(model)
        assert torch.equal(found.log_prob(codes), model.log_prob(codes))


def test_descriptions_from_before_experts_stay_as_they_were():
    config = described(head=DMLHeadConfig(), experts=None)
    assert "experts" not in config.to_plain()
    assert LanguageModelConfig.from_plain(config.to_plain()) == config
    assert LanguageModelConfig.from_plain(described().to_plain()) == described()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"experts": None}, "experts=adaptive and decoder=experts need each other.*experts=null"),
        ({"head": DMLHeadConfig()}, "need each other.*decoder=dml"),
        ({"experts": None, "head": DMLHeadConfig(), "backbone": NoBackboneConfig()}, "model=none is the experts"),
    ],
)
def test_parts_that_need_each_other(fields, message):
    with pytest.raises(ValueError, match=message):
        described(**fields)


def test_what_they_cannot_read_is_refused():
    config = described()
    with pytest.raises(ValueError, match=r"dataset\.quantization=mu-law"):
        dataclasses.replace(config, spec=AudioSpec(44100, 2, 8, quantization="mu-law"))
    with pytest.raises(ValueError, match=r"encoder\.merge=none keeps each apart"):
        dataclasses.replace(config, encoder=EmbeddingConfig(4, merge="none"), decoder=APART)
    with pytest.raises(ValueError, match="24 bits need model=none"):
        dataclasses.replace(config, spec=AudioSpec(44100, 2, 24))


def test_a_mono_model_is_no_beginning_of_a_stereo_one():
    with pytest.raises(
        ValueError, match="init_from begins a model with adaptive experts only with one of the very same"
    ):
        warm_start(build(), build(channels=1))
    model, source = build(moved=0.2), build()
    warm_start(model, source)
    assert torch.equal(model.log_prob(music(model)), source.log_prob(music(model)))


@torch.no_grad()
def test_a_frame_is_drawn_with_its_state():
    model = build()
    hidden, state = model(music(model), model.initial_state(2))
    uniform = torch.rand(2, 1, 2, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match="draws one frame and needs the state"):
        model.sample(hidden[:, -1:], uniform)
    codes, log_prob = model.sample(hidden[:, -1:], uniform, state=state)
    assert codes.shape == log_prob.shape == (2, 1, 2)
