"""The backbone: parameter counts of the originals, its schedule, no mutation, config errors.

Values are pinned in tests/golden/test_networks.py, chunking and causality in tests/property.
"""

import copy
from dataclasses import replace

import pytest
import torch

from stereo_sashimi.interop.reference import build
from stereo_sashimi.models.sashimi import SashimiConfig
from stereo_sashimi.nn.s4 import S4Config, S4DConfig

TINY = SashimiConfig(d_model=4, n_layers=1, pool=(2, 2), layer=S4Config(d_state=4))
FULL = {"d_model": 64, "n_layers": 8, "pool": [4, 4], "d_state": 64}


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"type": "sashimi_modular"}, 4_718_048),
        ({"type": "sashimi_modular", "n_ssm": None}, 5_401_568),
        ({"type": "sashimi_standalone"}, 5_414_656),
        ({"type": "sashimi_standalone", "unet": True}, 6_807_808),
        ({"type": "sashimi_standalone", "n_ssm": 1}, 4_731_136),
        ({"type": "sashimi_standalone", "n_ssm": 1, "unet": True}, 5_832_448),
        ({"type": "unet_modular"}, 6_787_488),
    ],
    ids=str,
)
def test_parameter_counts_are_those_of_the_originals(config, expected):
    assert count(build(FULL | config)) == expected


def test_width_grows_by_expand_at_each_level():
    module = replace(TINY, pool=(2, 3), expand=3).build()
    assert module.stride == 6
    assert [level[-1].linear.out_features for level in module.down] == [12, 36]
    assert [level[0].d_out for level in module.up] == [12, 4]


@pytest.mark.parametrize("unet", [False, True])
def test_the_schedule_names_rates_and_widths_and_drops_every_signal_that_it_keeps(unet):
    module = replace(TINY, pool=(2, 3), expand=3, unet=unet).build()
    steps = module.schedule()
    rates = [(step.side, step.level, step.stride, step.width) for step in steps]
    before = [("down", 0, 1, 4)] * 2 if unet else []
    assert rates[: len(before) + 1] == [*before, ("down", 0, 2, 12)]
    assert rates[-6:] == [("up", 1, 6, 12), *[("up", 1, 2, 12)] * 2, ("up", 0, 2, 4), *[("up", 0, 1, 4)] * 2]
    assert [step.stride for step in steps if step.side == "center"] == [6, 6]
    assert sum(step.add for step in steps) == 1 + sum(step.keep for step in steps)
    copied = copy.deepcopy(module)
    assert [id(step.module) for step in copied.schedule()] == [
        id(part) for level in (*copied.down, copied.center, *copied.up) for part in level
    ]


def test_states_are_batch_first_tensors_in_the_order_of_the_modules():
    module = replace(TINY, unet=True).build()
    state = module.initial_state(3)
    assert state.phase == 0
    assert len(state.layers) == len(module.schedule())
    tensors = [t for t in state.layers if t is not None]
    assert all(t.shape[0] == 3 for t in tensors)
    assert len(tensors) == 5 + 4  # S4 layers, pools


@torch.no_grad()
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(
    "fields",
    [
        {"unet": False},
        {"unet": True, "layer": S4DConfig(d_state=4, n_ssm=2, init="legs", discretization="bilinear")},
        {"unet": True, "layer": S4Config(d_state=4, n_ssm=None, dt_transform="exp")},
        {"unet": False, "layer": S4DConfig(d_state=4)},
    ],
    ids=["s4", "s4d, bilinear", "s4, untied", "s4d"],
)
def test_forward_mutates_nothing(fields, train):
    module = replace(TINY, norm="scalar", pool_weight_norm=True, **fields).build().train(train)
    before = copy.deepcopy(module.state_dict())
    x = torch.randn(2, 7, 4)
    _, state = module(x, module.initial_state(2))
    kept = [None if t is None else t.clone() for t in state.layers]
    first, second = (module(x), module(x, state)), (module(x), module(x, state))
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a[0], b[0])
    for ours, expected in zip(state.layers, kept, strict=True):
        assert ours is expected is None or torch.equal(ours, expected)
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("field", ["dropout", "dropres"])
def test_dropouts_act_in_training_only(field):
    torch.manual_seed(0)
    module = replace(TINY, **{field: 0.5}).build()
    x = torch.randn(1, 8, 4)
    assert not torch.equal(module(x)[0], module(x)[0])
    module.eval()
    assert torch.equal(module(x)[0], module(x)[0])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"d_model": 0}, r"model\.d_model"),
        ({"n_layers": 0}, r"model\.n_layers"),
        ({"expand": 0}, r"model\.expand"),
        ({"ff": -1}, r"model\.ff"),
        ({"pool": (4, 0)}, r"model\.pool"),
        ({"dropout": 1.0}, r"model\.dropout"),
        ({"dropres": -0.1}, r"model\.dropres"),
        ({"d_model": True}, r"model\.d_model"),
    ],
    ids=str,
)
def test_wrong_fields_are_refused_by_name(fields, message):
    with pytest.raises(ValueError, match=message):
        SashimiConfig(**fields)
