"""`init_from`: a run that begins with the weights of another one, mono into stereo too."""

import pytest
import torch

import stereo_sashimi

MONO = ("dataset.is_stereo=false", "decoder.coupling=independent", "trainer.max_steps=1", "logger=none")
# So short a step that the trained model still is what it began with.
STILL = ("optimizer.lr=1e-12", "optimizer.ssm_lr=1e-12", "trainer.max_steps=1", "logger=none")


@pytest.fixture(scope="module")
def mono_run(launch, mono_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("mono") / "run"
    launch(folder, mono_folder, *MONO)
    return folder


@pytest.mark.parametrize("merge", ["concat", "mix"])
def test_a_stereo_run_begins_as_the_mono_model(train, mono_run, merge, capsys):
    result = train(*STILL, f"init_from={mono_run}", f"encoder.merge={merge}")
    assert result["init_from"].endswith("best.ckpt")
    assert "initialised from" in capsys.readouterr().out
    mono, stereo = stereo_sashimi.load(mono_run), stereo_sashimi.load(result["run"])
    codes = torch.randint(65536, (1, 50, 1))
    alike = codes.expand(-1, -1, 2)
    torch.testing.assert_close(stereo.log_prob(alike), mono.log_prob(codes).expand(-1, -1, 2), rtol=1e-4, atol=1e-4)


def test_without_it_the_run_begins_at_random(train, mono_run):
    result = train(*STILL)
    assert result["init_from"] is None
    codes = torch.randint(65536, (1, 50, 1))
    stereo, mono = stereo_sashimi.load(result["run"]), stereo_sashimi.load(mono_run)
    assert not torch.allclose(stereo.log_prob(codes.expand(-1, -1, 2))[..., :1], mono.log_prob(codes), atol=1e-3)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["init_from=nothing"], "There is no checkpoint nothing.*init_from=runs"),
        (["init_from={mono}", "model.n_layers=2"], r"init_from holds a model with model\.n_layers=1; this run has 2"),
    ],
)
def test_what_cannot_be_taken_is_said(train, mono_run, overrides, message):
    with pytest.raises(ValueError, match=message):
        train(*(override.format(mono=mono_run) for override in overrides))
