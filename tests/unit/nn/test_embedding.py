"""MultiChannelEmbedding: one table per channel, merges, inits, errors."""

import pytest
import torch

from stereo_sashimi.nn.embedding import EmbeddingConfig


@pytest.mark.parametrize(
    ("merge", "d_input", "width"),
    [("concat", 1, 6), ("concat", 2, 12), ("sum", 1, 6), ("sum", 2, 6), ("mix", 1, 6), ("mix", 2, 6), ("none", 1, 6)],
)
def test_channels_are_merged(merge, d_input, width):
    config = EmbeddingConfig(d_model=6, merge=merge)
    embedding, codes = config.build(d_input, 256), torch.randint(256, (3, 5, d_input))
    rows = [table.weight[codes[..., channel]] for channel, table in enumerate(embedding.tables)]
    expected = sum(rows) if merge == "sum" else torch.cat(rows, dim=-1)
    if merge == "mix":
        expected = expected @ embedding.mix.weight.T + embedding.mix.bias
    torch.testing.assert_close(embedding(codes), expected, rtol=0, atol=1e-6 if merge == "mix" else 0)
    assert expected.shape == (3, 5, width)
    assert embedding.d_output == width
    assert config.separate == (merge == "none")


def test_each_channel_has_its_own_table_and_gradient():
    embedding = EmbeddingConfig(4).build(2, 256)
    assert len(list(embedding.parameters())) == 2
    assert not torch.equal(embedding.tables[0].weight, embedding.tables[1].weight)
    embedding(torch.tensor([[[3, 200]]])).sum().backward()
    for table, row in zip(embedding.tables, (3, 200), strict=True):
        assert table.weight.grad[row].eq(1).all()
        assert table.weight.grad.sum() == 4


@pytest.mark.parametrize("n_levels", [256, 65536])
def test_waveform_init_is_standardised_over_log_uniform_magnitudes(n_levels):
    weight = EmbeddingConfig(24, init="waveform").build(1, n_levels).tables[0].weight.detach().double()
    density = 1 / ((torch.arange(n_levels) - n_levels // 2).abs().double() + 1)
    density = density / density.sum()
    mean = density @ weight
    assert mean.abs().max() < 1e-5
    assert (density @ (weight - mean).square() - 1).abs().max() < 1e-4


def test_waveform_init_is_smooth_and_tells_amplitudes_apart():
    torch.manual_seed(0)
    weight = EmbeddingConfig(64, init="waveform").build(1, 65536).tables[0].weight.detach()
    rms = lambda step: (weight[step:] - weight[:-step]).square().mean().sqrt()  # noqa: E731
    assert rms(1) < 0.01
    assert rms(10) < 0.1
    assert rms(3000) > 1
    assert (weight[1:] - weight[:-1]).square().mean(-1).sqrt().max() < 0.3
    # Quiet codes matter: one LSB next to silence is a visible step, not round-off.
    assert (weight[32769] - weight[32768]).square().mean().sqrt() > 0.1


def test_inits_follow_the_seed_and_differ_between_channels():
    tables = []
    for _ in range(2):
        torch.manual_seed(7)
        tables.append(EmbeddingConfig(8, init="waveform").build(2, 256).tables)
    assert torch.equal(tables[0][1].weight, tables[1][1].weight)
    assert not torch.allclose(tables[0][0].weight, tables[0][1].weight)


def test_wrong_channel_counts_are_refused():
    with pytest.raises(ValueError, match="built for 1 channels; got codes with 2"):
        EmbeddingConfig(4).build(1, 256)(torch.zeros(1, 3, 2, dtype=torch.long))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"d_model": 0}, r"encoder\.d_model"),
        ({"d_model": True}, r"encoder\.d_model"),
        ({"init": "zeros"}, r"encoder\.init"),
        ({"table": "x"}, r"encoder\.table must be one of free, waveform; got 'x'"),
        ({"init": "waveform", "table": "waveform"}, r"encoder\.init=waveform fills free rows"),
    ],
    ids=str,
)
def test_config_errors_name_the_key(fields, message):
    with pytest.raises(ValueError, match=message):
        EmbeddingConfig(**fields)


def test_channels_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="one channel at a time; got d_input=2"):
        EmbeddingConfig(4, merge="none").build(2, 256)
