"""What a mistyped command line is answered: what was given, what there is, what was probably meant, in our words."""

import importlib.util
import os
import sys

import pytest

from stereo_sashimi.commands.cli import main
from stereo_sashimi.commands.prepare import DATA_SETS
from stereo_sashimi.commands.shared.errors import as_typed


@pytest.fixture
def said(monkeypatch, capsys):
    """`said(command, *words)`: the message with which a command refuses its words."""
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.delenv("STEREO_SASHIMI_TRACEBACK", raising=False)
    given = list(sys.argv)

    def go(*words: str) -> str:
        with pytest.raises(SystemExit) as stopped:
            main(words[0], words[1:])
        error = capsys.readouterr().err
        assert stopped.value.code == 1
        assert "Traceback" not in error
        assert "HYDRA" not in error
        assert len(error.splitlines()) <= 2, error
        assert (sys.argv, os.environ.get("HYDRA_FULL_ERROR")) == (given, None)
        return error

    return go


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("trian experiment=audio/sashimi-sample", "There is no command 'trian'. Did you mean train?"),
        ("dance", "There is no command 'dance'. Use one of train, generate, "),
        ("generate secods=2", "Unknown key secods. Did you mean seconds?"),
        ("generate bogus=1", "Unknown key bogus. Allowed: checkpoint, engine, "),
        ("train ~lanes", "Unknown key lanes. Allowed: "),
        ("compress ~lanes input=x", "~lanes takes away what the command reads. Give it a value: lanes=.."),
        ("train wandb=null", "Unknown key wandb. Did you mean logger=wandb?"),
        ("train experiment=sashimi-sample", "Did you mean experiment=audio/sashimi-sample?"),
        ("train experiment=audio/sashimi-sampel", "Did you mean experiment=audio/sashimi-sample?"),
        ("train model=sashimmi", "There is no model=sashimmi. Did you mean model=sashimi?"),
        (
            "train model=transformer",
            "There is no model=transformer. There are none, sashimi, sashimi_tiny, sashimi_unet.",
        ),
        ("train model/layre=s4d", "There is no group model/layre. Did you mean model/layer=s4d?"),
        ("train ~model.d_modle", "Unknown key model.d_modle. Did you mean model.d_model?"),
        ("evaluate data=a,b.wav", "For a name with a comma write 'data=\"a,b.wav\"', for a list 'data=[a,b.wav]'"),
        ("train optimizer.lr=0.1,0.2", "optimizer.lr=0.1,0.2 means several runs, which train.py -m starts."),
        ("prepare", "one of musdb18stereo, musdb18mono, sonicpi, scores, drums; none was given."),
        ("prepare musdb", "drums; got 'musdb'."),
    ],
)  # fmt: skip
def test_a_mistyped_word_is_answered_with_what_was_meant(said, words, message):
    assert message in said(*words.split(" "))


@pytest.mark.parametrize(
    ("package", "word", "extra"),
    [("optuna", "sweep=optuna", "sweep"), ("submitit", "hydra/launcher=submitit_slurm", "slurm")],
)
def test_a_sweep_or_launcher_without_its_extra_names_it(said, package, word, extra):
    if importlib.util.find_spec(package) is not None:
        pytest.skip("the extra is installed")
    assert f"pip install 'stereo-sashimi[{extra}]'" in said("train", word, "-m", "experiment=audio/sashimi-sample")


@pytest.mark.parametrize("name", DATA_SETS)
def test_prepare_has_the_options_of_the_scripts(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["stereo-sashimi"])
    with pytest.raises(SystemExit) as stopped:
        main(None, ["prepare", name, "--help"])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: stereo-sashimi prepare {name}")
    assert "--root" in out


def test_messages_name_the_command_that_is_installed(monkeypatch):
    text = "python train.py a=1, python preprocess/musdb18stereo_wav.py --sample, python -m stereo_sashimi memory"
    monkeypatch.setattr(sys, "argv", ["/any/bin/stereo-sashimi", "train"])
    assert as_typed(text) == (
        "stereo-sashimi train a=1, stereo-sashimi prepare musdb18stereo --sample, stereo-sashimi memory"
    )
    monkeypatch.setattr(sys, "argv", ["train.py"])
    assert as_typed(text) == text
