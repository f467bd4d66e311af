"""WaveformTable: exact features, rows in one order, and the frozen model that looks them up."""

import dataclasses

import pytest
import torch

from stereo_sashimi.models.language_model_config import LanguageModelConfig
from stereo_sashimi.models.sashimi import SashimiConfig
from stereo_sashimi.nn import EmbeddingConfig
from stereo_sashimi.nn.embedding import WaveformTable, waveform_features
from stereo_sashimi.nn.freeze import freeze
from stereo_sashimi.nn.heads.head import DMLHeadConfig
from stereo_sashimi.spec import AudioSpec


@pytest.mark.parametrize("n_levels", [256, 65536])
def test_features_are_exact_and_tell_all_codes_apart(n_levels):
    features = waveform_features(n_levels)
    assert features.abs().max() == 1
    # Multiples of 2 / n_levels, nothing rounded.
    scaled = features.double() * n_levels
    assert torch.equal(scaled, scaled.round())
    assert len(features.unique(dim=0)) == n_levels


def test_silence_and_its_neighbours_differ_in_the_steepest_ramps():
    features = waveform_features(65536)
    before, silence, after = features[32767:32770]
    ramp, loudness = 15, 31
    assert [x[ramp].item() for x in (before, silence, after)] == [-1, 0, 1]
    assert [x[loudness].item() for x in (before, silence, after)] == [1, -1, 1]


def test_rows_do_not_depend_on_threads():
    table, threads = WaveformTable(65536, 8), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = table.rows()
        torch.set_num_threads(2)
        assert torch.equal(one, table.rows())
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("merge", ["concat", "sum", "mix", "none"])
def test_a_frozen_model_looks_rows_up(merge):
    torch.manual_seed(0)
    config = LanguageModelConfig(
        spec=AudioSpec(44100, 2, 16),
        encoder=EmbeddingConfig(d_model=8, merge=merge, table="waveform"),
        model=SashimiConfig(d_model=8, n_layers=1, pool=(2,)),
        decoder=DMLHeadConfig(n_mixtures=2),
    )
    model = config.build().double()
    codes = torch.randint(65536, (2, 12, 2))
    frozen = freeze(model)
    assert all(isinstance(table, torch.nn.Embedding) for table in frozen.embedding.tables)
    assert isinstance(model.embedding.tables[0], WaveformTable)
    assert torch.allclose(frozen.log_prob(codes), model.log_prob(codes), rtol=1e-9)
    assert LanguageModelConfig.from_plain(config.to_plain()) == config
    assert dataclasses.replace(config.encoder, table="free") != config.encoder
