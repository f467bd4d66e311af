"""Channels are an axis: with `merge: sum` and independent heads, swapping channels and their tables swaps the results.

So no line of the model prefers left to right, beyond the tables and heads that belong to each channel.
"""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.nn.heads.head import CategoricalHeadConfig, DMLHeadConfig
from tiny_config import tiny_config

HEADS = [CategoricalHeadConfig(), DMLHeadConfig(n_mixtures=3)]


def build(head: CategoricalHeadConfig | DMLHeadConfig) -> LanguageModel:
    return tiny_config(merge="sum", head=head).build().eval()


def swapped(model: LanguageModel) -> LanguageModel:
    model = copy.deepcopy(model)
    model.embedding.tables = torch.nn.ModuleList(reversed(model.embedding.tables))
    model.head.channels = torch.nn.ModuleList(reversed(model.head.channels))
    return model


@torch.no_grad()
@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.kind)
@given(seed=st.integers(0, 2**31), length=st.integers(1, 13))
@settings(max_examples=6, deadline=None)
def test_swapping_channels_and_their_parameters_swaps_the_log_probs_exactly(head, seed, length):
    torch.manual_seed(seed)
    model = build(head)
    codes = torch.randint(256, (2, length, 2))
    assert torch.equal(swapped(model).log_prob(codes.flip(-1)), model.log_prob(codes).flip(-1))
    codes = torch.randint(256, (2, 13, 2))
    assert not torch.allclose(model.log_prob(codes.flip(-1)), model.log_prob(codes).flip(-1)), "channels alone"


@torch.no_grad()
@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.kind)
def test_samples_swap_too(head):
    model = build(head)
    hidden = torch.randn(2, 5, 4)
    uniform = torch.rand(2, 5, 2, model.head.n_uniforms, dtype=torch.float64)
    codes, log_prob = model.sample(hidden, uniform)
    codes_swapped, log_prob_swapped = swapped(model).sample(hidden, uniform.flip(2))
    assert torch.equal(codes_swapped, codes.flip(-1))
    assert torch.equal(log_prob_swapped, log_prob.flip(-1))
