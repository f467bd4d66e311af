"""Optimizer groups after SPEC section 8, learning-rate schedules, errors."""

import math
from itertools import chain

import pytest
import torch

from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.nn.heads.head import CategoricalHeadConfig, DMLHeadConfig
from stereo_sashimi.tasks.optim import GROUPS, AdamWConfig, CosineWarmupConfig, PlateauConfig, parameter_groups
from tiny_config import S4D, tiny_config

BACKBONES = [{"norm": "scalar", "pool_weight_norm": True}, {"unet": True, "layer": S4D}]
HEADS = [CategoricalHeadConfig("autoregressive"), DMLHeadConfig("autoregressive", n_mixtures=2)]


def build(backbone: dict, head: CategoricalHeadConfig | DMLHeadConfig) -> LanguageModel:
    return tiny_config(head=head, pool=(2,), **backbone).build()


@pytest.fixture(params=zip(BACKBONES, HEADS, strict=True), ids=["s4, categorical", "s4d, dml"])
def model(request) -> LanguageModel:
    return build(*request.param)


def test_every_parameter_is_in_exactly_one_group(model):
    groups = parameter_groups(model)
    assert tuple(groups) == GROUPS
    names = list(chain.from_iterable(groups.values()))
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    assert len(names) == len(set(names))
    optimized = [id(p) for group in AdamWConfig().build(model).param_groups for p in group["params"]]
    assert sorted(optimized) == sorted(id(p) for p in model.parameters())


def test_the_order_is_that_of_the_model_and_stable(model):
    order = {name: i for i, (name, _) in enumerate(model.named_parameters())}
    for group in parameter_groups(model).values():
        positions = [order[name] for name in group]
        assert positions == sorted(positions)
    again = model.config.build()
    assert [list(g) for g in parameter_groups(again).values()] == [list(g) for g in parameter_groups(model).values()]


@pytest.mark.parametrize(
    ("name", "group"),
    [
        *((f"backbone.center.0.layer.ssm.{p}", "ssm") for p in ("inv_dt", "A_real", "A_imag", "B", "P")),
        ("backbone.center.0.layer.ssm.C", "ssm_output"),
        ("backbone.center.0.layer.D", "decay"),
        ("backbone.center.0.layer.output.weight", "decay"),
        ("backbone.center.0.layer.output.bias", "no_decay"),
        ("backbone.center.0.norm.s", "no_decay"),
        ("backbone.down.0.0.linear.bias", "no_decay"),
        ("backbone.down.0.0.linear.weight_g", "decay"),
        ("backbone.norm.weight", "no_decay"),
        ("embedding.tables.1.weight", "decay"),
        ("head.channels.0.bias", "decay"),
        ("head.mixers.0.inner.bias", "decay"),
        ("head.mixers.0.tables.0.weight", "decay"),
    ],
)
def test_membership_is_that_of_the_original(name, group):
    groups = parameter_groups(build(BACKBONES[0], HEADS[0]))
    assert [key for key, members in groups.items() if name in members] == [group]


def test_rates_and_decay_of_each_group(model):
    optimizer = AdamWConfig(lr=0.004, weight_decay=0.1, betas=[0.8, 0.95], ssm_lr=0.001).build(model)
    seen = {g["name"]: (g["lr"], g["weight_decay"]) for g in optimizer.param_groups}
    assert seen == {"ssm": (0.001, 0.0), "ssm_output": (0.004, 0.1), "no_decay": (0.004, 0.0), "decay": (0.004, 0.1)}
    assert [g["name"] for g in optimizer.param_groups] == list(GROUPS)
    assert all(g["betas"] == (0.8, 0.95) for g in optimizer.param_groups)


def test_ssm_lr_null_is_the_base_rate(model):
    assert {g["lr"] for g in AdamWConfig(lr=0.02, ssm_lr=None).build(model).param_groups} == {0.02}


def test_frozen_parameters_are_left_out_and_empty_groups_too():
    model = build(BACKBONES[0], HEADS[0])
    model.backbone.requires_grad_(False)
    optimizer = AdamWConfig().build(model)
    assert [g["name"] for g in optimizer.param_groups] == ["decay"]


def test_a_model_without_state_spaces_is_served_too():
    optimizer = AdamWConfig().build(torch.nn.Linear(2, 3))
    assert [g["name"] for g in optimizer.param_groups] == ["no_decay", "decay"]


def test_cosine_warmup_factors():
    config = CosineWarmupConfig(total_steps=110, warmup_steps=10, min_factor=0.1)
    assert [config.factor(step) for step in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    assert config.factor(10) == 1
    assert config.factor(35) == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 4)))
    assert config.factor(60) == pytest.approx(0.55)
    assert config.factor(110) == pytest.approx(0.1)
    assert config.factor(10_000) == pytest.approx(0.1)
    factors = [config.factor(step) for step in range(10, 111)]
    assert factors == sorted(factors, reverse=True)
    assert CosineWarmupConfig(total_steps=10, warmup_steps=0).factor(0) == 1


def test_schedulers_scale_every_group(model):
    optimizer = AdamWConfig(lr=0.004).build(model)
    scheduler = CosineWarmupConfig(total_steps=100, warmup_steps=4).build(optimizer, "min")
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.00025, 0.001, 0.001, 0.001])
    optimizer.step()
    scheduler.step()
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.0005, 0.002, 0.002, 0.002])


@pytest.mark.parametrize(("mode", "values"), [("min", [1.0, 2.0]), ("max", [2.0, 1.0])])
def test_plateau_waits_for_its_patience(model, mode, values):
    optimizer = AdamWConfig(lr=0.004).build(model)
    scheduler = PlateauConfig(factor=0.5, patience=2).build(optimizer, mode)
    rates = []
    for value in (values[0], *3 * [values[1]]):
        scheduler.step(value)
        rates.append(optimizer.param_groups[-1]["lr"])
    assert rates == pytest.approx([0.004, 0.004, 0.004, 0.002])
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.0005)


@pytest.mark.parametrize(
    ("cls", "fields", "message"),
    [
        (AdamWConfig, {"ssm_lr": -1.0}, r"optimizer\.ssm_lr"),
        (AdamWConfig, {"weight_decay": -0.1}, r"optimizer\.weight_decay"),
        (AdamWConfig, {"betas": [0.9]}, r"optimizer\.betas"),
        (AdamWConfig, {"betas": [0.9, 1.0]}, r"optimizer\.betas"),
        (PlateauConfig, {"factor": 1.0}, "factor"),
        (PlateauConfig, {"patience": -1}, "patience"),
        (CosineWarmupConfig, {"warmup_steps": -1}, "warmup_steps"),
    ],
    ids=str,
)
def test_wrong_fields_are_refused_by_name(cls, fields, message):
    with pytest.raises(ValueError, match=message):
        cls(**fields)
