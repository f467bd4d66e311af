"""Fixtures of the tests of ."""

import numpy as np
import pytest
from musdb_folders import TRACKS, noise
from tracks import RATE

from stereo_sashimi.audio.io import write_pcm
from stereo_sashimi.data.corpora import sources


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """10 training clips, 6 validation clips and 2 test clips of 16 stereo frames."""
    root = tmp_path_factory.mktemp("data") / "tracks"
    for split, files in {"train": (64, 20, 80), "valid": (96,), "test": (40,)}.items():
        (root / split).mkdir(parents=True)
        for number, frames in enumerate(files):
            pcm = np.random.default_rng(frames).integers(-9, 9, (frames, 2)).astype(np.int16)
            write_pcm(root / split / f"{number}.wav", pcm, RATE)
    return root


@pytest.fixture
def hq(tmp_path):
    root = tmp_path / "musdb18hq"
    for name, seed in TRACKS.items():
        (root / name).mkdir(parents=True)
        for n, target in enumerate(sources.TARGETS):
            write_pcm(root / name / f"{target}.wav", noise(10 * seed + n), 44100)
    return root


@pytest.fixture
def no_musdb_path(monkeypatch, tmp_path):
    monkeypatch.delenv("MUSDB_PATH", raising=False)
    monkeypatch.chdir(tmp_path)
