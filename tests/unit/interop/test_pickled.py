"""Looking values up in a configuration that was saved with its interpolations."""

import pytest
from omegaconf import OmegaConf

from stereo_sashimi.interop.pickled import lookup
from stereo_sashimi.models.checkpoint import CheckpointError

TREE = {
    "model": {
        "dropout": 0.1,
        "layer": {"dropout": "${..dropout}", "d_state": "${model.size}", "lr": "${.rates}", "rates": {"A": "${..x}"}},
        "size": "${dataset.bits}",
        "x": None,
        "twin": "${.layer}",
    },
    "dataset": {"bits": 8, "l_max": "${.bits}"},
}


@pytest.mark.parametrize(
    "key",
    ["model.dropout", "model.layer.dropout", "model.layer.d_state", "dataset.l_max", "model.twin.rates", "model.x"],
)
def test_references_are_followed_as_omegaconf_does(key):
    assert lookup(TREE, key, "nothing") == OmegaConf.select(OmegaConf.create(TREE), key)


@pytest.mark.parametrize("key", ["nothing", "model.nothing", "model.dropout.deeper", "model.layer.nothing.at.all"])
def test_a_key_that_is_not_there_has_the_default(key):
    assert lookup(TREE, key, 3) == 3


@pytest.mark.parametrize(
    "expression", ["${oc.env:HOME}", "${eval:1+1}", "a-${.b}", "${nowhere}", "${.b}", "${b.c}", "${...b}"]
)
def test_what_cannot_be_followed_is_named(expression):
    with pytest.raises(CheckpointError, match=r"leave a\.b open"):
        lookup({"a": {"b": expression}, "b": {"c": "${a.b}"}}, "a.b")
