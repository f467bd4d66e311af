"""speak: errors about input end with one message and a code, anything else keeps its traceback."""

import pytest
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf

from stereo_sashimi.commands.shared.errors import speak


def failing(error: BaseException):
    @speak
    def command() -> None:
        """A command."""
        raise error

    return command


@pytest.fixture(autouse=True)
def _no_traceback(monkeypatch):
    monkeypatch.delenv("STEREO_SASHIMI_TRACEBACK", raising=False)


class OddError(ValueError):
    """A subclass, named in what is printed."""


@pytest.mark.parametrize("error", [ValueError("bits is 12"), FileNotFoundError("bits is 12"), OddError("bits is 12")])
def test_an_error_of_input_is_one_line(capsys, error):
    with pytest.raises(SystemExit) as stopped:
        failing(error)()
    assert stopped.value.code == 1
    assert capsys.readouterr().err == f"{type(error).__name__}: bits is 12\n"


def test_an_error_of_a_file_names_it(capsys):
    with pytest.raises(SystemExit):
        failing(PermissionError(13, "Permission denied", "a/b.wav"))()
    said = "PermissionError: a/b.wav: Permission denied. Give a path that this user may read, for outputs also write.\n"
    assert capsys.readouterr().err == said


def test_the_error_inside_a_constructor_is_the_one_shown(capsys):
    config = OmegaConf.create({"_target_": "stereo_sashimi.nn.DMLHeadConfig", "n_mixtures": 0})
    with pytest.raises(InstantiationException):
        instantiate(config)
    with pytest.raises(SystemExit):
        speak(instantiate)(config)
    error = capsys.readouterr().err
    assert error == "ValueError: decoder.n_mixtures must be an integer of at least 1; got 0.\n"


def test_a_key_that_was_taken_away_is_named(capsys):
    def read() -> None:
        config = OmegaConf.create({"train": {"mode": "min"}})
        OmegaConf.set_struct(config, True)
        config.train.seed  # noqa: B018

    with pytest.raises(SystemExit):
        speak(read)()
    assert "reads train.seed, which its config does not have. Give train.seed=.." in capsys.readouterr().err


def test_interrupted(capsys):
    with pytest.raises(SystemExit) as stopped:
        failing(KeyboardInterrupt())()
    assert stopped.value.code == 130
    assert "Interrupted." in capsys.readouterr().err


@pytest.mark.parametrize("error", [TypeError("ours"), RuntimeError("CUDA out of memory"), AssertionError("ours")])
def test_our_own_mistakes_keep_their_traceback(error):
    with pytest.raises(type(error)):
        failing(error)()


def test_a_traceback_on_request(monkeypatch):
    monkeypatch.setenv("STEREO_SASHIMI_TRACEBACK", "1")
    with pytest.raises(ValueError, match="bits"):
        failing(ValueError("bits"))()


def test_results_and_names_pass():
    @speak
    def add(a: int, b: int) -> int:
        """Sum."""
        return a + b

    assert add(1, b=2) == 3
    assert (add.__name__, add.__doc__) == ("add", "Sum.")
