"""The pools: feature order against loops, the causal shift, remainders, weight normalisation, errors."""

import pytest
import torch
from torch import nn

from stereo_sashimi.nn.freeze import freeze
from stereo_sashimi.nn.pooling import DownPool, UpPool

every_pool = pytest.mark.parametrize("pool", [1, 2, 4])
weight_norms = pytest.mark.parametrize("weight_norm", [False, True])


@torch.no_grad()
@every_pool
@weight_norms
def test_down_pool_groups_channel_major(pool, weight_norm):
    module = DownPool(3, 5, pool, weight_norm)
    x = torch.randn(2, 3 * pool + pool - 1, 3)  # the frames after the third group are dropped
    y, none = module(x)
    assert none is None
    assert y.shape == (2, 3, 5)
    weight, bias = module.linear.weight, module.linear.bias
    for group in range(3):
        expected = bias.expand(2, 5).clone()
        for h in range(3):
            for s in range(pool):
                expected += weight[:, h * pool + s] * x[:, group * pool + s, h : h + 1]
        torch.testing.assert_close(y[:, group], expected)


@torch.no_grad()
@every_pool
@weight_norms
def test_up_pool_spreads_channel_major_and_one_group_late(pool, weight_norm):
    module = UpPool(5, 3, pool, weight_norm)
    x = torch.randn(2, 3, 5)
    y, none = module(x, None, 4 * pool)
    assert none is None
    weight, bias = module.linear.weight, module.linear.bias
    assert y[:, :pool].eq(0).all(), "the first group is zero, not the bias"
    for group in range(3):
        for h in range(3):
            for s in range(pool):
                row = h * pool + s
                expected = x[:, group] @ weight[row] + bias[row]
                torch.testing.assert_close(y[:, (group + 1) * pool + s, h], expected)


def test_up_pool_gives_pool_frames_for_each_one_by_default():
    assert UpPool(5, 3, 4)(torch.randn(2, 3, 5))[0].shape == (2, 12, 3)


@torch.no_grad()
def test_states_do_not_share_memory_with_inputs():
    down, up = DownPool(3, 5, 4), UpPool(5, 3, 4)
    x = torch.randn(1, 6, 3)
    _, remainder = down(x, down.initial_state(1))
    _, pending = up(torch.randn(1, 1, 5), up.initial_state(1), 5)
    kept = remainder.clone(), pending.clone()
    x.zero_()
    down(torch.randn(1, 1, 3), remainder)
    up(torch.randn(1, 0, 5), pending, 2)
    assert torch.equal(remainder, kept[0])
    assert torch.equal(pending, kept[1])


def test_up_pool_refuses_lengths_that_do_not_belong_together():
    module = UpPool(5, 3, 4)
    with pytest.raises(ValueError, match="4 frames for 5"):
        module(torch.randn(1, 0, 5), module.initial_state(1), 5)


@torch.no_grad()
@pytest.mark.parametrize(
    "module", [DownPool(3, 5, 2, weight_norm=True), UpPool(3, 5, 2, weight_norm=True)], ids=["down", "up"]
)
def test_freezing_computes_the_weight_once_changes_no_bit_and_draws_no_random_number(module):
    module = module.double()
    module.linear.weight_g.mul_(2)
    before = torch.get_rng_state()
    frozen = freeze(module)
    assert torch.equal(torch.get_rng_state(), before)
    assert type(frozen.linear) is nn.Linear
    assert type(module.linear) is not nn.Linear
    assert not any(p.requires_grad for p in frozen.parameters())
    x, state = torch.randn(2, 4, 3, dtype=torch.float64), module.initial_state(2)
    torch.testing.assert_close(frozen(x, state), module(x, state), rtol=0, atol=0)
