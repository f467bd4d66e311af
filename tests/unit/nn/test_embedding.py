"""MultiChannelEmbedding: one table per channel, merges, inits, errors."""

import pytest
import torch

from stereo_sashimi.nn.embedding import EmbeddingConfig, MultiChannelEmbedding
from stereo_sashimi.schema import from_plain, to_plain


@pytest.mark.parametrize("d_input", [1, 2])
def test_concat_puts_the_channels_side_by_side(d_input):
    embedding = EmbeddingConfig(d_model=6).build(d_input, 256)
    codes = torch.randint(256, (3, 5, d_input))
    features = embedding(codes)
    assert embedding.d_output == 6 * d_input
    assert features.shape == (3, 5, embedding.d_output)
    for channel in range(d_input):
        expected = embedding.tables[channel].weight[codes[..., channel]]
        assert torch.equal(features[..., 6 * channel : 6 * channel + 6], expected)


@pytest.mark.parametrize("d_input", [1, 2])
def test_sum_keeps_the_width(d_input):
    embedding = EmbeddingConfig(d_model=6, merge="sum").build(d_input, 256)
    codes = torch.randint(256, (3, 5, d_input))
    expected = sum(embedding.tables[c].weight[codes[..., c]] for c in range(d_input))
    assert embedding.d_output == 6
    assert torch.allclose(embedding(codes), expected)


@pytest.mark.parametrize("d_input", [1, 2])
def test_mix_is_a_linear_map_of_concat(d_input):
    embedding = EmbeddingConfig(d_model=6, merge="mix").build(d_input, 256)
    codes = torch.randint(256, (3, 5, d_input))
    rows = torch.cat([embedding.tables[c].weight[codes[..., c]] for c in range(d_input)], dim=-1)
    assert embedding.d_output == 6
    assert torch.allclose(embedding(codes), rows @ embedding.mix.weight.T + embedding.mix.bias, atol=1e-6)


def test_without_merge_one_channel_is_embedded_at_a_time():
    config = EmbeddingConfig(d_model=6, merge="none")
    assert config.separate
    assert not any(EmbeddingConfig(merge=merge).separate for merge in ("concat", "sum", "mix"))
    embedding, codes = config.build(1, 256), torch.randint(256, (3, 5, 1))
    assert torch.equal(embedding(codes), embedding.tables[0].weight[codes[..., 0]])
    with pytest.raises(ValueError, match="one channel at a time; got d_input=2"):
        config.build(2, 256)


def test_each_channel_has_its_own_table_and_gradient():
    embedding = MultiChannelEmbedding(2, 256, 4)
    assert len(list(embedding.parameters())) == 2
    assert not torch.equal(embedding.tables[0].weight, embedding.tables[1].weight)
    embedding(torch.tensor([[[3, 200]]])).sum().backward()
    for table, row in zip(embedding.tables, (3, 200), strict=True):
        assert table.weight.grad[row].eq(1).all()
        assert table.weight.grad.sum() == 4


def test_normal_init_is_standard_normal():
    torch.manual_seed(0)
    weight = MultiChannelEmbedding(1, 65536, 8).tables[0].weight
    assert abs(weight.mean().item()) < 0.01
    assert abs(weight.std().item() - 1) < 0.01


@pytest.mark.parametrize("n_levels", [256, 65536])
def test_waveform_init_is_standardised_over_log_uniform_magnitudes(n_levels):
    weight = MultiChannelEmbedding(1, n_levels, 24, init="waveform").tables[0].weight.detach().double()
    density = 1 / ((torch.arange(n_levels) - n_levels // 2).abs().double() + 1)
    density = density / density.sum()
    mean = density @ weight
    assert mean.abs().max() < 1e-5
    assert (density @ (weight - mean).square() - 1).abs().max() < 1e-4


def test_waveform_init_is_smooth_and_tells_amplitudes_apart():
    torch.manual_seed(0)
    weight = MultiChannelEmbedding(1, 65536, 64, init="waveform").tables[0].weight.detach()
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
        tables.append(MultiChannelEmbedding(2, 256, 8, init="waveform").tables)
    assert torch.equal(tables[0][1].weight, tables[1][1].weight)
    assert not torch.allclose(tables[0][0].weight, tables[0][1].weight)


def test_wrong_channel_count_is_refused():
    with pytest.raises(ValueError, match="built for 1 channels; got codes with 2"):
        MultiChannelEmbedding(1, 256, 4)(torch.zeros(1, 3, 2, dtype=torch.long))


@pytest.mark.parametrize(("field", "value"), [("d_model", 0), ("d_model", True), ("merge", "mean"), ("init", "zeros")])
def test_config_errors_name_the_key(field, value):
    with pytest.raises(ValueError, match=f"encoder.{field}"):
        EmbeddingConfig(**{field: value})


def test_config_survives_a_checkpoint():
    config = EmbeddingConfig(d_model=8, merge="sum", init="waveform")
    assert from_plain(to_plain(config), [EmbeddingConfig], "encoder") == config
