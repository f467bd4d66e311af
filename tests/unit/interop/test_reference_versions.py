"""Names and shapes from before version 4.0. Whole models under these names: tests/golden/test_lightning.py."""

import pytest
import torch

from stereo_sashimi.interop.versions import modernise

OLD = "c_layers.0.layer.kernel.kernel."
NEW = "c_layers.0.layer.layer.kernel."


def test_what_no_kernel_needs_any_more_is_left_out():
    state = {OLD + "omega": torch.rand(9, 2), OLD + "z": torch.rand(9, 2), "c_layers.0.layer.D": torch.rand(2)}
    modern, config = modernise(state, {"type": "sashimi_modular"})
    assert {key: tuple(value.shape) for key, value in modern.items()} == {"c_layers.0.layer.layer.D": (1, 2)}
    assert config == {"type": "sashimi_modular"}


def test_the_real_part_under_a_sigmoid():
    magnitude = torch.tensor([[0.5, 0.25]], dtype=torch.float64)
    stored = magnitude.logit()
    modern, config = modernise({OLD + "inv_w_real": stored}, {"real_transform": "sigmoid"})
    torch.testing.assert_close(modern[NEW + "A_real"], magnitude.log(), rtol=0, atol=1e-14)
    assert "real_transform" not in config
    # log_w_real says by its name how it is stored.
    modern, _ = modernise({OLD + "log_w_real": stored}, {"real_transform": "sigmoid"})
    assert torch.equal(modern[NEW + "A_real"], stored)


@pytest.mark.parametrize(
    ("state", "config", "message"),
    [
        ({}, {"real_transform": "tanh"}, "real_transform must be one of exp, none, softplus, sigmoid; got 'tanh'"),
        ({OLD + "log_dt": torch.ones(1)}, {"dt_transform": "softplus"}, "log_dt means dt_transform 'exp'"),
        ({OLD + "Q": torch.ones(1)}, {}, r"kernel\.Q: kernels that learn w and Q"),
        ({OLD + "inv_w_real": -torch.ones(1, 2)}, {"real_transform": "none"}, "not negative"),
    ],
)
def test_what_cannot_be_brought_up_to_date_is_named(state, config, message):
    with pytest.raises(ValueError, match=message):
        modernise(state, config)
