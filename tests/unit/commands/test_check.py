"""check_keys: every key of a config must be read by something; `tests/e2e/test_configs.py` checks the real configs."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from stereo_sashimi.commands.shared.checks import PLAIN, check_keys


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"trian": {}}, r"Unknown key trian\. Did you mean train\?"),
        ({"backend": {"zzz": 1}}, r"Unknown key backend\.zzz\. Allowed: name\."),
        (
            {"decoder": {"_target_": "stereo_sashimi.nn.CategoricalHeadConfig", "n_mixtures": 2}},
            r"Unknown key decoder\.n_mixtures\. Allowed: coupling\.",
        ),
        (
            {"model": {"_target_": "stereo_sashimi.models.sashimi.SashimiConfig",
                       "layer": {"_target_": "stereo_sashimi.nn.S4Config", "d_sate": 4}}},
            r"Unknown key model\.layer\.d_sate\. Did you mean model\.layer\.d_state\?",
        ),
        (
            {"callbacks": {"last": {"_target_": "stereo_sashimi.tasks.checkpoints.LastCheckpoint", "dir": "x"}}},
            r"Unknown key callbacks\.last\.dir\. Did you mean callbacks\.last\.dirpath\?",
        ),
    ],
)  # fmt: skip
def test_a_key_that_nothing_reads_is_named(config, message):
    with pytest.raises(ValueError, match=message):
        check_keys(OmegaConf.create(config))


def test_another_command_has_other_sections():
    config = OmegaConf.create({"seconds": 1.0})
    check_keys(config, ("seconds",))
    with pytest.raises(ValueError, match=r"Unknown key seconds"):
        check_keys(config)


@settings(max_examples=50, deadline=None)
@given(section=st.sampled_from(sorted(PLAIN)), key=st.text(st.characters(categories=("Ll",)), min_size=1, max_size=12))
def test_a_plain_section_takes_its_own_keys_only(section, key):
    config = OmegaConf.create({section: {key: 1}})
    if key in PLAIN[section]:
        check_keys(config)
    else:
        with pytest.raises(ValueError, match=rf"Unknown key {section}\.{key}\."):
            check_keys(config)
