"""Heads: the chain rule over channels, slices of the likelihood, ranks, draws, the start of training, errors."""

import pytest
import torch
from small_heads import WIDTH, batch, build, each_head, each_width

from stereo_sashimi.distributions.sampler import Sampler
from stereo_sashimi.nn.heads.head import CategoricalHeadConfig, DMLHeadConfig


@each_head
@each_width
def test_score_is_the_mass_of_each_channel_given_the_earlier_ones(config, n_channels):
    head, (hidden, codes) = build(config, n_channels), batch(n_channels)
    scored = head.score(hidden, codes, with_rank=True)
    assert scored.log_prob.shape == scored.rank.shape == codes.shape
    assert scored.rank.dtype == torch.int64
    assert head.d_output == (3 * config.n_mixtures if config.kind == "dml" else 256)
    assert torch.equal(head.score(hidden, codes).log_prob, scored.log_prob)
    for channel in range(n_channels):
        mass = head.log_mass(hidden, codes[..., :channel], channel)
        true = mass.gather(-1, codes[..., channel : channel + 1])
        assert torch.allclose(scored.log_prob[..., channel], true[..., 0], atol=1e-5)
        assert torch.equal(scored.rank[..., channel], (mass > true).sum(-1))


@each_head
@pytest.mark.parametrize(("n_channels", "with_rank"), [(1, True), (2, False), (3, True)])
def test_the_loss_is_the_weighted_score_with_its_gradients(config, n_channels, with_rank):
    head, (hidden, codes) = build(config, n_channels).double(), batch(n_channels)
    hidden = hidden.double().requires_grad_()
    weight = torch.rand(2, 5, dtype=torch.float64)
    weight[0, 3:] = 0
    loss, told = head.loss(hidden, codes, weight, with_rank)
    score = head.score(hidden, codes, with_rank)
    expected = -(score.log_prob * weight.unsqueeze(-1)).sum()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(told.log_prob, score.log_prob.detach(), rtol=1e-12, atol=1e-12)
    assert not told.log_prob.requires_grad
    assert torch.equal(told.rank, score.rank) if with_rank else told.rank is None
    trained = [hidden, *(p for p in head.parameters() if p.requires_grad)]
    ours = torch.autograd.grad(loss, trained, allow_unused=True)
    for value, exact in zip(ours, torch.autograd.grad(expected, trained, allow_unused=True), strict=True):
        torch.testing.assert_close(value, exact, rtol=1e-9, atol=1e-11)
    with torch.no_grad():
        torch.testing.assert_close(head.loss(hidden, codes, weight, with_rank)[0], expected.detach())


@each_head
def test_only_later_channels_see_a_code_and_only_when_coupled(config):
    head, (hidden, codes) = build(config, 3), batch(3)
    for changed in range(3):
        other = codes.clone()
        other[..., changed] = (other[..., changed] + 100) % 256
        before, after = (head.score(hidden, given).log_prob for given in (codes, other))
        for channel in {0, 1, 2} - {changed}:
            same = torch.equal(before[..., channel], after[..., channel])
            assert same == (config.coupling == "independent" or channel < changed)


def test_dml_coupling_moves_the_means_linearly_in_the_amplitudes():
    head, (hidden, codes) = build(DMLHeadConfig("autoregressive", n_mixtures=4), 3), batch(3)
    x = 2 * codes / 256 - 1
    for channel in range(3):
        moved = head.channel_parameters(hidden, codes[..., :channel], channel) - head.channels[channel](hidden)
        assert moved[..., :4].abs().max() == moved[..., 8:].abs().max() == 0
        expected = torch.zeros(2, 5, 4)
        if channel:
            coefficients = head.couplers[channel - 1](hidden).unflatten(-1, (channel, 4))
            expected = (coefficients * x[..., :channel, None]).sum(-2)
        assert torch.allclose(moved[..., 4:8], expected, atol=1e-5 if channel else 0)
    for uncoupled in (build(DMLHeadConfig(), 3), build(DMLHeadConfig("autoregressive"), 1)):
        assert len(uncoupled.couplers) == 0


@each_head
@each_width
def test_draws_walk_the_channels_and_report_the_plain_log_probability(config, n_channels):
    head, (hidden, _) = build(config, n_channels), batch(n_channels)
    uniform = torch.rand(2, 5, n_channels, head.n_uniforms, dtype=torch.float64)
    for temperature in (0.0, 0.5, 1.0):
        codes, log_prob = head.sample(hidden, uniform, Sampler(temperature=temperature))
        assert codes.dtype == torch.int64
        assert torch.allclose(log_prob, head.score(hidden, codes).log_prob, atol=1e-5)
    alone = [head.sample(hidden[i : i + 1], uniform[i : i + 1])[0] for i in range(2)]
    assert torch.equal(torch.cat(alone), head.sample(hidden, uniform)[0])


@each_head
def test_draws_of_a_frame_follow_the_joint_mass(config):
    head = build(config, 2, n_levels=8)
    # A Kronecker lattice: multiples of irrational steps fill the unit cube evenly in any dimension.
    steps = torch.tensor([2.0, 3.0, 5.0, 7.0], dtype=torch.float64).sqrt()[: 2 * head.n_uniforms]
    uniform = (torch.arange(60000).unsqueeze(-1) * steps).frac().view(-1, 1, 2, head.n_uniforms)
    hidden = torch.randn(WIDTH).expand(len(uniform), 1, WIDTH)
    codes, _ = head.sample(hidden, uniform)
    drawn = torch.bincount(codes[:, 0, 0] * 8 + codes[:, 0, 1], minlength=64) / len(uniform)
    frames = torch.cartesian_prod(torch.arange(8), torch.arange(8)).view(64, 1, 2)
    mass = head.score(hidden[:64], frames).log_prob.sum((1, 2)).exp()
    assert 0.5 * (drawn - mass).abs().sum() < 0.01


def test_ranks_of_16_bit_codes_are_for_the_categorical_head():
    head, (hidden, codes) = build(DMLHeadConfig(), 1, 65536), batch(1, 65536)
    assert not head.can_rank
    with pytest.raises(ValueError, match=r"task.metrics=\[bpb\]"):
        head.score(hidden, codes, with_rank=True)
    assert head.score(hidden, codes, with_rank=False).rank is None
    assert build(DMLHeadConfig(), 1, 256).can_rank
    assert build(CategoricalHeadConfig(), 1, 65536).can_rank


@each_head
def test_wrong_shapes_are_refused(config):
    head, (hidden, codes) = build(config, 2), batch(2)
    with pytest.raises(ValueError, match="models 2 channels"):
        head.score(hidden, codes[..., :1])
    with pytest.raises(ValueError, match="uniform numbers of shape"):
        head.sample(hidden, torch.rand(2, 5, 2, 5))
    if config.coupling == "independent":
        assert torch.equal(head.log_mass(hidden, None, 1), head.log_mass(hidden, codes[..., :1], 1))
    else:
        with pytest.raises(ValueError, match="Channel 1 of an autoregressive head"):
            head.log_mass(hidden, None, 1)


def test_a_head_has_channels():
    with pytest.raises(ValueError, match="n_channels"):
        DMLHeadConfig().build(8, 0, 256)
