"""The S4 layer: its formula, shared parameters, freezing, precision, errors. Chunking is in tests/property."""

import copy

import pytest
import torch
from torch import nn

from stereo_sashimi.nn.freeze import freeze
from stereo_sashimi.nn.s4 import S4, FrozenSSM, S4Config, S4DConfig

CONFIGS = [
    S4Config(d_state=4),
    S4Config(d_state=4, n_ssm=None, dt_transform="exp"),
    S4DConfig(d_state=4),
    S4DConfig(d_state=4, n_ssm=2, init="legs", discretization="bilinear"),
]


def ids(config):
    return f"{config.kind}-{config.n_ssm}-{config.dt_transform}"


every_config = pytest.mark.parametrize("config", CONFIGS, ids=ids)


@pytest.mark.parametrize("cls", [S4Config, S4DConfig])
def test_copies_are_shared_by_channels_modulo_n_ssm(cls):
    layer = S4(6, cls(d_state=4, n_ssm=2)).ssm
    assert layer.A_real.shape == layer.A_imag.shape == (2, 2)
    with torch.no_grad():
        layer.A_real.copy_(torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
    lam = layer.lam()
    for h in range(6):
        torch.testing.assert_close(-lam.real[h], layer.A_real[h % 2].double().exp())


@pytest.mark.parametrize("transform", ["softplus", "exp"])
def test_initial_steps_lie_between_dt_min_and_dt_max(transform):
    layer = S4(256, S4Config(d_state=2, dt_min=0.002, dt_max=0.2, dt_transform=transform)).ssm
    dt = layer.dt().detach()
    assert dt.min() >= 0.002 * (1 - 1e-3)
    assert dt.max() <= 0.2 * (1 + 1e-3)
    assert dt.max() / dt.min() > 20


@torch.no_grad()
@every_config
def test_freezing_changes_no_bit_and_leaves_the_original_alone(config):
    model = nn.Sequential(S4(4, config)).train()
    before = copy.deepcopy(model.state_dict())
    frozen = freeze(model)
    assert isinstance(frozen[0].ssm, FrozenSSM)
    assert not isinstance(model[0].ssm, FrozenSSM)
    assert model.training
    assert not frozen.training
    assert all(p.requires_grad for p in model.parameters())
    assert not any(p.requires_grad for p in frozen.parameters())
    state = torch.randn(3, 4, 2, dtype=torch.complex64)
    model.eval()
    x = torch.randn(3, 1, 4)
    for ours, expected in zip(frozen[0](x, state), model[0](x, state), strict=True):
        assert torch.equal(ours, expected)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    model[0].ssm.C.add_(1)
    assert not torch.equal(frozen[0](x, state)[0], model[0](x, state)[0]), "the copy followed the original"
    assert torch.equal(freeze(frozen)[0](x, state)[0], frozen[0](x, state)[0])


@torch.no_grad()
def test_the_recurrence_stays_in_float32_under_autocast():
    layer = S4(4, S4Config(d_state=4, dt_min=0.1))
    x = torch.randn(1, 40, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, state = layer(x, layer.initial_state(1))
    assert state.dtype == torch.complex64
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(state, layer(x, layer.initial_state(1))[1], rtol=1e-6, atol=1e-6)


def test_dropout_acts_in_training_only():
    layer = S4(4, S4Config(d_state=4), dropout=0.5)
    x = torch.randn(1, 16, 4)
    assert not torch.equal(layer(x)[0], layer(x)[0])
    layer.eval()
    assert torch.equal(layer(x)[0], layer(x)[0])


@pytest.mark.parametrize(
    ("cls", "fields", "message"),
    [
        (S4DConfig, {"d_state": 0}, r"model\.layer\.d_state must be even"),
        (S4Config, {"d_state": -2}, r"model\.layer\.d_state must be even"),
        (S4DConfig, {"n_ssm": 0}, r"model\.layer\.n_ssm"),
        (S4Config, {"dt_min": 0.2, "dt_max": 0.1}, "dt_min <= dt_max"),
        (S4DConfig, {"dt_min": 0.0}, "dt_min"),
        (S4DConfig, {"init": "nope"}, r"model\.layer\.init"),
        (S4DConfig, {"discretization": "nope"}, r"model\.layer\.discretization"),
    ],
)
def test_wrong_fields_are_refused_by_name(cls, fields, message):
    with pytest.raises(ValueError, match=message):
        cls(**fields)


def test_copies_must_divide_the_width():
    with pytest.raises(ValueError, match="n_ssm must divide the width 4"):
        S4(4, S4Config(d_state=4, n_ssm=3))
