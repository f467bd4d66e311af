"""Names and shapes from before version 4.0. Whole models under these names: tests/golden/test_lightning.py."""

import pytest
import torch

from stereo_sashimi.interop.versions import modernise

OLD = "c_layers.0.layer.kernel.kernel."
NEW = "c_layers.0.layer.layer.kernel."


@pytest.mark.parametrize("prefix", ["", "model."])
def test_names_shapes_and_signs(prefix):
    old = {"log_dt": torch.tensor([-3.0, -5.0]), "w_imag": -torch.rand(1, 3), "log_w_real": torch.rand(3),
           "B": torch.rand(1, 3, 2), "C": torch.rand(2, 3, 2), "P": torch.rand(1, 1, 3, 2),
           "L": torch.tensor(16), "omega": torch.rand(9, 2), "z": torch.rand(9, 2)}  # fmt: skip
    state = {prefix + OLD + key: value for key, value in old.items()} | {prefix + "c_layers.0.layer.D": torch.rand(2)}
    modern, config = modernise(state, {"type": "sashimi_modular"})
    assert config == {"type": "sashimi_modular", "dt_transform": "exp"}
    shapes = {key.removeprefix(prefix): tuple(value.shape) for key, value in modern.items()}
    assert shapes == {
        NEW + "inv_dt": (2, 1), NEW + "A_imag": (1, 3), NEW + "A_real": (1, 3), NEW + "B": (1, 1, 3, 2),
        NEW + "C": (1, 2, 3, 2), NEW + "P": (1, 1, 3, 2), NEW + "l_kernel": (), "c_layers.0.layer.layer.D": (1, 2),
    }  # fmt: skip
    assert torch.equal(modern[prefix + NEW + "A_imag"], -old["w_imag"])
    assert torch.equal(modern[prefix + NEW + "A_real"][0], old["log_w_real"])


@pytest.mark.parametrize("transform", ["exp", "none", "softplus", "sigmoid"])
def test_the_real_part_under_each_transform(transform):
    magnitude = torch.tensor([[0.5, 0.25]], dtype=torch.float64)
    stored = {
        "exp": magnitude.log(), "none": magnitude, "softplus": magnitude.expm1().log(), "sigmoid": magnitude.logit(),
    }[transform]  # fmt: skip
    state = {OLD + "inv_w_real": stored, OLD + "log_dt": torch.zeros(2)}
    modern, config = modernise(state, {"real_transform": transform})
    torch.testing.assert_close(modern[NEW + "A_real"], magnitude.log(), rtol=0, atol=1e-14)
    assert "real_transform" not in config
    # log_w_real says by its name how it is stored.
    modern, _ = modernise({OLD + "log_w_real": stored}, {"real_transform": transform})
    assert torch.equal(modern[NEW + "A_real"], stored)


def test_version_4_stays_as_it_is():
    names = ("inv_dt", "A_real", "A_imag", "B", "C", "P")
    state = {NEW + name: torch.rand((1, 1, 3, 2) if name in "BCP" else (1, 3)) for name in names}
    state |= {
        "c_layers.0.layer.layer.D": torch.rand(1, 2),
        "norm.weight": torch.rand(2),
        "d_layers.0.linear.bias": state,
    }
    modern, config = modernise(state, {"dt_transform": "softplus"})
    assert config == {"dt_transform": "softplus"}
    assert modern.keys() == state.keys()
    assert all(modern[key] is state[key] for key in state)


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
