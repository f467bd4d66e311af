"""What training on segments asks of a model: features behind a carried state, and rows put back to the start."""

import pytest
import torch

from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.models.language_model_config import LanguageModelConfig
from stereo_sashimi.models.sashimi import SashimiConfig, SashimiState, finite_rows, reset_rows
from stereo_sashimi.nn import CategoricalHeadConfig, EmbeddingConfig, S4Config
from stereo_sashimi.spec import AudioSpec


def model_of(merge: str) -> LanguageModel:
    """A stereo model in float64; with `none` its channels are sequences of their own."""
    torch.manual_seed(0)
    backbone = SashimiConfig(d_model=4, n_layers=1, pool=(2, 2), layer=S4Config(d_state=4))
    config = LanguageModelConfig(
        AudioSpec(44100, 2, 8), EmbeddingConfig(4, merge=merge), backbone, CategoricalHeadConfig()
    )
    return config.build().double()


def codes_of(batch_size: int) -> torch.Tensor:
    return torch.randint(256, (batch_size, 16, 2), generator=torch.Generator().manual_seed(1))


def test_not_finite_channels_of_their_own_count_for_their_clip():
    model = model_of("none")
    state = model.initial_state(3)
    layers = [x if x is None else x.clone() for x in state.layers]
    next(x for x in layers if x is not None and x.numel())[3] = torch.inf
    assert model.finite_rows(SashimiState(0, tuple(layers)), 3).tolist() == [True, False, True]


@torch.no_grad()
def test_reset_rows_is_pure_and_takes_rows_whole():
    model = model_of("none")
    _, state = model.hidden_after(model.start_codes(3), codes_of(3), model.initial_state(3))
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


def test_hidden_after_is_hidden_for_at_the_start():
    model = model_of("concat")
    codes = codes_of(2)
    with torch.no_grad():
        hidden, state = model.hidden_after(model.start_codes(2), codes, model.initial_state(2))
        torch.testing.assert_close(hidden, model.hidden_for(codes), rtol=0.0, atol=1e-9)
    assert state.phase == 0
