"""Paths on the command line: those that Hydra reads as they are, and the quotes of the others."""

import re
import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st

from stereo_sashimi.commands.shared.overrides import check_overrides, override

PLAIN = ("/tmp/a b", "runs/2026-01-02_03-04-05/last.ckpt", "C:/music", "../a.b", "a%b@c+d", "a\\", "")
QUOTED = ("/tmp/a=b", "/tmp/ü", "it's", 'a"b', 'a\\"b', "a,b", "(x)", "[x]", "{x}", "a#b", " a", "null", "3")


def parsed(text: str) -> object:
    return OverridesParser.create().parse_override(text).value()


@pytest.mark.parametrize("value", PLAIN + QUOTED)
def test_hydra_reads_back_what_was_meant(value):
    assert parsed(override("k", value)) == value
    assert (override("k", value) == f"k={value}") == (value in PLAIN)


# A dollar in front of a brace is an interpolation, and meant as one.
@settings(max_examples=30, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_characters="$\n\r")))
def test_any_text(value):
    assert parsed(override("k", value)) == value


def test_a_name_that_is_not_utf_8_is_said():
    with pytest.raises(ValueError, match=r"^'input=caf\\udce9\.wav' has bytes that are not UTF-8. Rename the file"):
        check_overrides(["input=caf\udce9.wav"])


def test_lists_are_read_back():
    assert parsed(override("k", [*PLAIN, *QUOTED])) == [*PLAIN, *QUOTED]


@pytest.mark.parametrize("value", ["/tmp/a=b", "/tmp/ü", "it's", 'a"b', "(x)", "a#b"])
def test_the_message_says_what_to_type(value):
    with pytest.raises(ValueError, match="cannot be read") as caught:
        check_overrides(["model=sashimi", f"dataset.path={value}"])
    command = re.search(r"Write (.*) \(the outer", str(caught.value))
    assert command is not None
    (argument,) = shlex.split(command[1])
    check_overrides([argument])
    assert parsed(argument) == value


def test_what_is_no_override_is_left_to_hydra():
    check_overrides(["--cfg", "job", "-m", "--config-dir=/tmp/ü", "optimizer.lr=0.1,0.2", "~logger", "+a.b=[1,2]"])
