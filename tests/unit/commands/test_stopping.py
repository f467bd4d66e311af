"""Why a run ended: wanted or not."""

import signal
import sys
from types import SimpleNamespace

import pytest
from pytorch_lightning.utilities.exceptions import SIGTERMException

from stereo_sashimi.commands.train.stopping import CtrlC, _cause, stoppable


def behind(error: BaseException, reason: BaseException) -> BaseException:
    """An error as it is when it was raised while `reason` was handled."""
    error.__context__ = reason
    return error


@pytest.mark.parametrize(
    ("error", "received_sigterm", "pressed", "cause"),
    [
        (KeyboardInterrupt(), False, True, (True, 130)),
        (behind(RuntimeError("clean-up fails"), KeyboardInterrupt()), False, False, (True, 130)),
        (RuntimeError("half compiled"), False, True, (True, 130)),
        (SIGTERMException(), False, False, (True, 143)),
        (RuntimeError("a worker was killed"), True, False, (True, 143)),
    ],
)
def test_a_signal_is_the_cause_also_of_the_errors_that_it_leads_to(error, received_sigterm, pressed, cause):
    trainer = SimpleNamespace(received_sigterm=received_sigterm, state=SimpleNamespace(status=None))
    assert _cause(error, trainer, pressed) == cause


def test_another_error_is_none_that_anyone_wanted():
    trainer = SimpleNamespace(received_sigterm=False, state=SimpleNamespace(status=None))
    for error in (RuntimeError("out of memory"), behind(ValueError(), RuntimeError())):
        assert not _cause(error, trainer, False)[0]


def test_a_ctrl_c_that_python_drops_comes_at_the_next_batch():
    ctrl_c = CtrlC()
    ctrl_c.on_train_batch_start()
    # What a finalizer raises is dropped.
    with pytest.raises(KeyboardInterrupt):
        ctrl_c.note(2, None)
    for again in (ctrl_c.on_train_batch_start, ctrl_c.on_validation_batch_start, ctrl_c.on_test_batch_start):
        with pytest.raises(KeyboardInterrupt):
            again()


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_only_a_dropped_ctrl_c_is_dropped_without_a_word(error, monkeypatch, capsys):
    class Loader:
        def __del__(self):
            raise error

    monkeypatch.setattr(sys, "unraisablehook", CtrlC().hush)
    Loader()
    assert ("ValueError" in capsys.readouterr().err) == (error is ValueError)


def test_a_system_without_sighup(monkeypatch, tmp_path):
    monkeypatch.delattr(signal, "SIGHUP")
    trainer = SimpleNamespace(callbacks=[], received_sigterm=False)
    before = signal.getsignal(signal.SIGTERM)
    with stoppable(trainer, tmp_path, {}, None):
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
