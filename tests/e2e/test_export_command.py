"""The export command: checkpoint, exported model and Lightning's own loading agree to the bit; errors speak."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import stereo_sashimi
from stereo_sashimi.commands.cli import main
from stereo_sashimi.commands.export import export
from stereo_sashimi.commands.generate import generate_command as generate
from stereo_sashimi.models.exported import read_header
from stereo_sashimi.tasks import AutoregressiveTask

pytestmark = pytest.mark.slow

KINDS = {
    "stereo-dml-s4": ("decoder=dml", "decoder.coupling=autoregressive", "model/layer=s4"),
    "stereo-categorical-s4d": ("decoder=categorical", "dataset.bits=8", "model/layer=s4d"),
    "mono-dml-s4d": ("dataset.is_stereo=false", "decoder=dml", "model/layer=s4d"),
    "mono-categorical-s4": ("dataset.is_stereo=false", "decoder=categorical", "dataset.bits=8", "model/layer=s4"),
}


@pytest.fixture(autouse=True)
def _no_traceback(monkeypatch):
    monkeypatch.delenv("STEREO_SASHIMI_TRACEBACK", raising=False)


@pytest.fixture
def run(dml_run, tmp_path) -> Path:
    """A run of its own, to write into."""
    return Path(shutil.copytree(dml_run, tmp_path / "run"))


@pytest.mark.parametrize("kind", KINDS)
def test_three_ways_to_load_give_the_same_bits(launch, stereo_folder, mono_folder, tmp_path, kind):
    overrides = KINDS[kind]
    launch(
        tmp_path / "run", mono_folder if kind.startswith("mono") else stereo_folder, "logger=none",
        "encoder.init=normal", "train.validate_before=false", *overrides,
    )  # fmt: skip
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    task = AutoregressiveTask.load_from_checkpoint(path, weights_only=True).eval()
    loaded = stereo_sashimi.load(path)
    exported = stereo_sashimi.load(export(str(path), str(tmp_path / "out")))
    assert exported.config == loaded.config == task.model.config
    codes = torch.randint(exported.spec.n_levels, (2, 50, exported.spec.n_channels))
    with torch.no_grad():
        expected = task.model.log_prob(codes)
        assert torch.equal(loaded.log_prob(codes), expected)
        assert torch.equal(exported.log_prob(codes), expected)
    assert expected.isfinite().all()


def test_a_run_is_exported_with_its_facts(run):
    folder = export(str(run))
    assert folder == run.resolve() / "export"
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}
    header = read_header(folder / "config.json")
    best = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    result = json.loads((run / "run.json").read_text())
    assert header.package_version == stereo_sashimi.__version__
    assert header.training.steps == best["global_step"] > 0
    assert header.training.checkpoint == "best.ckpt"
    bits = result["validation_after"]["val/bits_per_sample"]
    assert header.training.validation_bits_per_sample == bits > 0
    assert "/" not in json.dumps(header.training.checkpoint)
    assert str(run) not in (folder / "config.json").read_text()


def test_numbers_of_other_weights_are_not_claimed(run, tmp_path):
    header = read_header(export(str(run / "checkpoints" / "last.ckpt"), str(tmp_path / "last")) / "config.json")
    assert header.training.checkpoint == "last.ckpt"
    assert header.training.validation_bits_per_sample is None
    (run / "run.json").unlink()
    header = read_header(export(str(run), str(tmp_path / "best")) / "config.json")
    assert header.training.validation_bits_per_sample is None
    (run / "run.json").write_text('{"best": "best.ckpt", "validation_after": 3}')
    with pytest.raises(ValueError, match=r"run\.json is damaged"):
        export(str(run), str(tmp_path / "damaged"))
    assert not (tmp_path / "damaged").exists()


@pytest.mark.usefixtures("cheap_pictures")
def test_generate_takes_an_exported_model(run, composed, tmp_path):
    folder = export(str(run))

    def sample(checkpoint: Path, out: str) -> bytes:
        overrides = (f"checkpoint={checkpoint}", "seconds=0.001", "device=cpu", f"out={tmp_path / out}")
        return generate.run(composed("generate", *overrides))[0].read_bytes()

    assert sample(folder, "a") == sample(run, "b") == sample(folder / "model.safetensors", "c")
    (wav,) = generate.run(composed("generate", f"checkpoint={folder}", "seconds=0.001", "device=cpu"))
    assert wav.parent == folder / "samples"


def test_the_command(run):
    command = [sys.executable, "-m", "stereo_sashimi", "export"]
    done = subprocess.run(
        [*command, f"checkpoint={run}", "out='a=b c'"], cwd=run.parent, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "a=b c  load it with stereo_sashimi.load('a=b c')\n"
    assert stereo_sashimi.load(run.parent / "a=b c").spec.n_channels == 2


def test_the_help_names_every_key(capsys):
    main("export", ["--help"])
    shown = capsys.readouterr().out
    for word in ("checkpoint: ", "out: ", "overwrite: "):
        assert word in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), r"checkpoint has no value: give checkpoint="),
        (("checkpont=x",), r"Unknown key checkpont\. Did you mean checkpoint\?"),
        (("{run}",), r"run' must be key=value; --help lists the keys"),
        (("checkpoint",), r"'checkpoint' must be key=value"),
        (("--checkpoint={run}",), r"must be written as checkpoint=.*run, without dashes"),
        (("checkpoint={run}", "+x=1"), r"Unknown key x\. Allowed: checkpoint, out, overwrite"),
        (("checkpoint={run}", "out="), r"'out=' must be key=value.*For none write key=null"),
        (("checkpoint={run}", "overwrite=yes"), r"overwrite must be true or false; got 'yes'"),
        (("checkpoint=absent",), r"There is no checkpoint absent"),
        (("checkpoint={run}/run.json",), r"run\.json is truncated or not a checkpoint"),
        (
            ("checkpoint={run}/checkpoints",),
            r"holds no model: .*checkpoints/best\.ckpt, .*last\.ckpt, and no finished",
        ),
        (("checkpoint={run}", "out={run}"), r"run is not empty.*out=<folder>.*overwrite=true"),
        (("checkpoint={run}", "out={run}/run.json"), r"run\.json is a file; give a folder"),
        (("checkpoint={run}", "out={run}/run.json/x"), r"run\.json/x: cannot write the model"),
    ],
    ids=" ".join,
)
def test_errors_are_one_message(run, capsys, words, message):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(SystemExit) as stopped:
        main("export", [word.format(run=run) for word in words])
    assert stopped.value.code == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert re.search(message, error), error
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_an_exported_model_is_not_exported_again(run, capsys):
    folder = export(str(run))
    with pytest.raises(ValueError, match="is an exported model already"):
        export(str(folder))
    with pytest.raises(ValueError, match=r"export is not empty.*overwrite=true"):
        export(str(run))
    main("export", [f"checkpoint={run / 'checkpoints' / 'last.ckpt'}", "overwrite=true"])
    assert "load it with" in capsys.readouterr().out
    assert read_header(folder / "config.json").training.checkpoint == "last.ckpt"
