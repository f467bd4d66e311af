"""Ctrl-C waits while half of something is changed, and comes afterwards."""

import os
import runpy
import signal
import threading

import pytest

from stereo_sashimi import signals
from stereo_sashimi.signals import TRAINING_SIGNALS, Deferral, uninterrupted


@pytest.fixture(autouse=True)
def ctrl_c():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_comes_behind_the_block():
    done = []

    @uninterrupted()
    def change():
        os.kill(os.getpid(), signal.SIGINT)
        done.append("first half")
        done.append("second half")

    with pytest.raises(KeyboardInterrupt):
        change()
    assert done == ["first half", "second half"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_signals_that_a_system_does_not_have(monkeypatch):
    # Windows; another copy of the module, as signals are looked up once.
    for name in ("SIGHUP", "SIGUSR1", "SIGPIPE"):
        monkeypatch.delattr(signal, name)
    module = runpy.run_path(signals.__file__)
    assert module["TRAINING_SIGNALS"] == (signal.SIGINT,)
    assert module["STOPPING"] == (signal.SIGINT, signal.SIGTERM)
    assert (module["Stopped"](13).name, module["Stopped"](2).name) == ("SIGPIPE", "SIGINT")
    with module["listening"]() as deferral:
        deferral.hold()
        deferral.release()


def test_nothing_comes_where_nothing_was_sent():
    with uninterrupted():
        pass
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_holding_twice_keeps_the_handler():
    deferral = Deferral(TRAINING_SIGNALS)
    deferral.hold()
    deferral.hold()
    deferral.release()
    deferral.release()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_ignored_ctrl_c_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with uninterrupted():
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_other_threads_have_no_handlers():
    errors = []

    def work():
        try:
            with uninterrupted():
                pass
        except ValueError as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert errors == []
