"""Checkpoints of the original: what does not fit is refused by name. Their numbers are in tests/golden."""

import pytest
import torch

from stereo_sashimi.interop import load_reference, reference
from stereo_sashimi.interop.keys import rename

CONFIG = {"type": "s4block", "d_model": 4, "d_state": 4}


def s4_state(l_kernel: int = 0) -> dict[str, torch.Tensor]:
    """An S4 block with the original's keys and shapes (SPEC section 4)."""
    g = torch.Generator().manual_seed(0)
    shapes = {
        "layer.D": (1, 4),
        "layer.kernel.inv_dt": (4, 1),
        "layer.kernel.A_real": (1, 2),
        "layer.kernel.A_imag": (1, 2),
        "layer.kernel.P": (1, 1, 2, 2),
        "layer.kernel.B": (1, 1, 2, 2),
        "layer.kernel.C": (1, 4, 2, 2),
        "output_linear.0.weight": (8, 4),
        "output_linear.0.bias": (8,),
    }
    state = {key: torch.randn(shape, generator=g) for key, shape in shapes.items()}
    return state | {"layer.kernel.l_kernel": torch.tensor(l_kernel)}


def test_the_channels_may_be_solved_one_at_a_time(monkeypatch):
    at_once = load_reference(s4_state(16), CONFIG).ssm.C
    monkeypatch.setattr(reference, "MATRIX_VALUES", 1)
    torch.testing.assert_close(load_reference(s4_state(16), CONFIG).ssm.C, at_once, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("config", [{}, {"type": "sashimi"}, {"type": None}], ids=str)
def test_an_unknown_type_is_refused_with_the_choices(config):
    with pytest.raises(ValueError, match=r"config\['type'\] must be one of s4block, sashimi_modular"):
        load_reference(s4_state(), config)


@pytest.mark.parametrize("field", ["d_model", "d_state"])
def test_a_missing_config_field_is_named(field):
    config = {key: value for key, value in CONFIG.items() if key != field}
    with pytest.raises(ValueError, match=f"lacks '{field}'"):
        load_reference(s4_state(), config)


@pytest.mark.parametrize("l_kernel", [0, 16])
@pytest.mark.parametrize("key", ["layer.D", "layer.kernel.P", "layer.kernel.C", "output_linear.0.bias"])
def test_a_missing_key_is_named(key, l_kernel):
    state = s4_state(l_kernel)
    del state[key]
    ours = rename(key, CONFIG)
    with pytest.raises(ValueError, match=rf"1 parameters are missing \({ours}\), 0 are left over"):
        load_reference(state, CONFIG)


@pytest.mark.parametrize("key", ["layer.kernel.omega", "encoder.0.weight", "D", ""])
def test_a_left_over_key_is_named(key):
    state = s4_state() | {key: torch.zeros(3)}
    with pytest.raises(ValueError, match=r"left over|is not part of a 's4block'") as caught:
        load_reference(state, CONFIG)
    assert repr(key) in str(caught.value) or key.rsplit(".", 1)[-1] in str(caught.value)


@pytest.mark.parametrize("l_kernel", [0, 16])
@pytest.mark.parametrize(
    ("key", "shape"), [("layer.kernel.C", (1, 4, 3, 2)), ("layer.kernel.A_real", (3, 2)), ("layer.D", (1, 5))]
)
def test_a_wrong_shape_is_named_with_both_shapes(key, shape, l_kernel):
    state = s4_state(l_kernel) | {key: torch.zeros(shape)}
    with pytest.raises(ValueError, match=rename(key, CONFIG)) as caught:
        load_reference(state, CONFIG)
    assert "check d_model, n_layers, pool, d_state and n_ssm" in str(caught.value)
