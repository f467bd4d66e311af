"""Signals whose exception python drops, as in a callback of C; deferrals are in tasks/test_deferral.py."""

import ctypes
import signal
import sys
import time

import pytest

from stereo_sashimi.signals import Stopped, listening


@ctypes.CFUNCTYPE(None)
def in_a_callback():
    signal.raise_signal(signal.SIGINT)
    time.sleep(0)


def heard(work, error=Stopped):
    """What leaves a block that listens while it does this work."""
    with pytest.raises(error) as stopped, listening():
        work()
    return stopped.value


def test_it_comes_again():
    def work():
        in_a_callback()
        for _ in range(500):
            time.sleep(0.01)

    hook = sys.unraisablehook
    assert heard(work).number == signal.SIGINT
    assert sys.unraisablehook is hook


def test_an_error_that_it_leaves_behind_is_the_signal():
    def work():
        in_a_callback()
        raise RuntimeError("half compiled")

    assert str(heard(work).__cause__) == "half compiled"
    # It does not come again where nobody listens.
    time.sleep(0.2)


def test_other_errors_are_what_they_are(monkeypatch):
    class Broken:
        def __del__(self):
            raise OSError("dropped")

    def work():
        Broken()
        raise RuntimeError("of its own")

    told = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    assert str(heard(work, RuntimeError)) == "of its own"
    assert [str(each.exc_value) for each in told] == ["dropped"]
