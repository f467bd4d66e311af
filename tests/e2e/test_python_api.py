"""The Python that README.md and docs/ show runs as it stands, and does what its comments say."""

import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import stereo_sashimi
from stereo_sashimi.audio.io import write_pcm
from stereo_sashimi.audio.quantize import encode

ROOT = Path(__file__).resolve().parents[2]


def python_of(document: str) -> str:
    """All ```python blocks of a document, in order; `<run>` stands for a name that the reader fills in."""
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / document).read_text(), re.MULTILINE | re.DOTALL)
    assert blocks, f"{document} shows no Python"
    return "\n".join(blocks).replace("<run>", "demo")


@pytest.fixture
def place(dml_run, tmp_path, monkeypatch) -> Path:
    """A folder as a reader has it: a run and a song of 300 frames."""
    (tmp_path / "runs").mkdir()
    shutil.copytree(dml_run, tmp_path / "runs" / "demo")
    rng = np.random.default_rng(3)
    write_pcm(tmp_path / "song.wav", rng.integers(-3000, 3000, (300, 2)).astype(np.int16), 44100)
    monkeypatch.chdir(tmp_path)
    # Half a second is 22,050 frames, one at a time.
    draw = stereo_sashimi.generate
    monkeypatch.setattr(
        stereo_sashimi, "generate", lambda model, seconds, **k: draw(model, seconds / 1000, **k), raising=False
    )
    return tmp_path


def run(document: str, **names: Any) -> dict[str, Any]:
    exec(compile(python_of(document), document, "exec"), names)
    return names


@pytest.mark.usefixtures("place")
def test_what_the_readme_shows_runs():
    assert isinstance(run("README.md")["model"], stereo_sashimi.LanguageModel)


@pytest.mark.usefixtures("place")
def test_load_score_continue_write(capsys):
    names = run("docs/python.md")
    model, pcm, longer = names["model"], names["pcm"], names["longer"]
    assert not model.training
    assert (pcm.dtype, pcm.shape) == (np.int16, (300, 2))
    with torch.no_grad():
        nats = -model.double().log_prob(torch.from_numpy(encode(pcm, model.spec))[None])
    bits = float(nats.mean()) / np.log(2)
    left, right = (float(x) / np.log(2) for x in nats.mean((0, 1)))
    assert f"{bits:.2f}" in capsys.readouterr().out
    score = stereo_sashimi.score(model, pcm)
    assert score.bits_per_sample == pytest.approx(bits, rel=1e-9)
    assert score.channel_bits_per_sample == pytest.approx({"left": left, "right": right}, rel=1e-9)
    # 22 frames are half a millisecond.
    assert longer.shape == (322, 2)
    assert np.array_equal(longer[:300], pcm)
    written = stereo_sashimi.read("longer.wav", model.spec)
    assert np.array_equal(written, longer)
    frame = names["frame"]
    assert frame.codes.shape == frame.log_prob.shape == (2, 1, 2)


@pytest.mark.usefixtures("place")
def test_predictions_of_experts():
    names = run("docs/experts.md")
    assert names["nats"].shape == names["codes"].shape == (1, 300, 2)
    assert torch.isfinite(names["nats"]).all()


@pytest.mark.usefixtures("place")
def test_a_stream():
    model, codes = stereo_sashimi.load("runs/demo"), torch.zeros(2, 5, 2, dtype=torch.long)
    names = run("docs/generation.md", model=model, codes=codes)
    assert names["frames"].codes.shape[0] == 2
    assert names["log_prob"].shape == codes.shape


def test_the_codec():
    rng = np.random.default_rng(0)
    pcm, wide = rng.integers(-9, 9, (45200, 2)).astype(np.int16), rng.integers(-9, 9, (500, 2)).astype(np.int32)
    names = run("docs/codec.md", pcm=pcm, wide=wide)
    assert np.array_equal(names["part"], pcm[44100:45100])
    assert np.array_equal(stereo_sashimi.decode(names["model"], names["data"]), wide)


def test_the_package_and_the_project_have_one_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert stereo_sashimi.__version__ == project["version"]
