"""What training on segments asks of a model: rows that are put back to the start, or that are not finite."""

import pytest
import torch

from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.models.sashimi import SashimiState, finite_rows, reset_rows
from tiny_config import tiny_config


@pytest.fixture
def model() -> LanguageModel:
    """A stereo model in float64 whose channels are sequences of their own."""
    return tiny_config(merge="none").build().double()


def test_not_finite_channels_of_their_own_count_for_their_clip(model):
    state = model.initial_state(3)
    layers = [x if x is None else x.clone() for x in state.layers]
    next(x for x in layers if x is not None and x.numel())[3] = torch.inf
    assert model.finite_rows(SashimiState(0, tuple(layers)), 3).tolist() == [True, False, True]


@torch.no_grad()
def test_reset_rows_is_pure_and_takes_rows_whole(model):
    codes = torch.randint(256, (3, 16, 2))
    _, state = model.hidden_after(model.start_codes(3), codes, model.initial_state(3))
    copies = [None if x is None else x.clone() for x in state.layers]
    after = model.reset_rows(state, torch.tensor([True, False, True]))
    for new, old, copy, fresh in zip(after.layers, state.layers, copies, model.initial_state(3).layers, strict=True):
        if old is None:
            assert new is None
            continue
        assert torch.equal(old, copy)
        # Two sequences to a clip, one after the other.
        for row in range(6):
            assert torch.equal(new[row], (old if row in (2, 3) else fresh)[row])
    with pytest.raises(ValueError, match=r"phase 1, not 0\. Advance it by multiples of the product of model\.pool"):
        reset_rows(state._replace(phase=1), model.initial_state(3), torch.tensor([True] * 6))
    assert finite_rows(state).tolist() == [True] * 6
