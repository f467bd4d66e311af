"""Fixtures of the end-to-end tests: small stereo and mono folders, composed configs, runs of the real command."""

import hashlib
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
from composing import compose_cached
from matplotlib.figure import Figure
from omegaconf import DictConfig
from running import SMALL, TINY, keep_seeds

from stereo_sashimi.audio.io import write_pcm
from stereo_sashimi.commands.compress import compress_command as app_compress
from stereo_sashimi.commands.evaluate import evaluate_command as app_evaluate
from stereo_sashimi.commands.evaluate import page as evaluation_page
from stereo_sashimi.commands.generate import generate_command as app_generate
from stereo_sashimi.commands.report import report_command
from stereo_sashimi.commands.shared.errors import speak
from stereo_sashimi.commands.train import train_command as app_train
from stereo_sashimi.plots import sheet

RUNS = {
    "train": app_train.run,
    "generate": app_generate.run,
    "evaluate": app_evaluate.run,
    "compress": app_compress.run,
}
RATE = 44100


def music(frames: int, channels: int, seed: int) -> np.ndarray:
    """Sums of sines and noise, int16 (frames, channels); the right channel is the left one, later and softer."""
    rng = np.random.default_rng(seed)
    time = np.arange(frames + 9) / RATE
    wave = sum(a * np.sin(2 * np.pi * f * time) for a, f in zip((6000, 3000), rng.uniform(100, 2000, 2), strict=True))
    wave = wave + 300 * rng.standard_normal(len(time))
    sides = [wave[9:], 0.6 * wave[:-9] + 50 * rng.standard_normal(frames)]
    return np.stack(sides[:channels], axis=1).round().astype(np.int16)


def write_folder(root: Path, channels: int, frames: int = 704) -> Path:
    for seed, split in enumerate(("train", "valid", "test")):
        (root / split).mkdir(parents=True)
        write_pcm(root / split / f"{split}.wav", music(frames, channels, seed), RATE)
    return root


@pytest.fixture(scope="session")
def stereo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """11 clips of 64 stereo frames in each split."""
    return write_folder(tmp_path_factory.mktemp("data") / "stereo", channels=2)


@pytest.fixture(scope="session")
def mono_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """11 clips of 64 mono frames in each split."""
    return write_folder(tmp_path_factory.mktemp("data") / "mono", channels=1)


@pytest.fixture(scope="session")
def tracks_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Training tracks of 5, 2, 8, 3 and 1 clips of 64, the last ones of three tracks short."""
    root = tmp_path_factory.mktemp("tracks")
    for split, frames in (("train", (320, 100, 512, 170, 40)), ("valid", (200, 90)), ("test", (128,))):
        (root / split).mkdir()
        for number, n in enumerate(frames):
            noise = np.random.default_rng([n, number]).integers(-3000, 3000, (n, 2)).astype(np.int16)
            write_pcm(root / split / f"{number}.wav", noise, RATE)
    return root


@pytest.fixture(scope="session")
def composed() -> Callable[..., DictConfig]:
    """`composed("train", *overrides)`: the config that the command of this name would get."""
    return compose_cached


def watch(patch: pytest.MonkeyPatch, *watchers: pl.Callback) -> None:
    """From now on trainings have these Lightning callbacks too."""
    build = app_train.build_trainer

    def build_watched(cfg: DictConfig) -> pl.Trainer:
        trainer = build(cfg)
        trainer.callbacks.extend(watchers)
        return trainer

    patch.setattr(app_train, "build_trainer", build_watched)


def start(
    composed: Callable[..., DictConfig], run: Path, data: Path, overrides: Sequence[str], watchers: Sequence[Any]
) -> dict[str, Any]:
    """Train into the folder `run`; `watchers` are further Lightning callbacks."""
    cfg = composed("train", *overrides, f"dataset.path={data}", f"paths.run={run}")
    with pytest.MonkeyPatch.context() as patch:
        watch(patch, *watchers)
        keep_seeds(patch)
        return app_train.train(cfg)


@pytest.fixture(scope="session")
def launch(composed: Callable[..., DictConfig]) -> Callable[..., dict[str, Any]]:
    """`launch(run, data, *overrides)`: train into the folder `run`; for fixtures that outlive one test."""

    def go(run: Path, data: Path, *overrides: str) -> dict[str, Any]:
        return start(composed, run, data, (*TINY, *overrides), ())

    return go


@pytest.fixture
def train(composed: Callable[..., DictConfig], stereo_folder: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """`train(*overrides, run=folder, data=folder, watchers=callbacks)`: returns what run.json holds.

    `base` are the overrides in front: those of a tiny model, in 3 steps.
    """

    def go(
        *overrides: str,
        run: Path = tmp_path / "run",
        data: Path = stereo_folder,
        watchers: Sequence[Any] = (),
        base: Sequence[str] = TINY,
    ) -> dict[str, Any]:
        return start(composed, run, data, (*base, *overrides), watchers)

    return go


def contents(folder: Path) -> dict[Path, str]:
    """Every file under a folder and the digest of what it holds."""
    return {
        path: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


@pytest.fixture
def refusal(
    composed: Callable[..., DictConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., str]:
    """`refusal("train", *overrides)`: what a command says when it refuses its input, as a user sees it.

    Checks that it ends with code 1 and a few lines without a traceback, that no file under `tmp_path` was lost or
    changed, and that nothing half-written is left.
    """
    monkeypatch.delenv("STEREO_SASHIMI_TRACEBACK", raising=False)
    keep_seeds(monkeypatch)

    def go(command: str, *overrides: str) -> str:
        cfg = composed(command, *overrides)
        before = contents(tmp_path)
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            speak(RUNS[command])(cfg)
        error = capsys.readouterr().err
        assert stopped.value.code == 1
        assert "Traceback" not in error
        assert not error.startswith("Instantiation")
        assert 0 < len(error.strip().splitlines()) <= 4, error
        after = contents(tmp_path)
        assert {path: after.get(path) for path in before} == before
        assert not [path for path in after if path.name.endswith((".part", ".tmp"))]
        return error

    return go


@pytest.fixture(scope="session")
def small() -> tuple[str, ...]:
    """Overrides that make any experiment small enough for a test."""
    return SMALL


@pytest.fixture(scope="session")
def dml_run(
    launch: Callable[..., dict[str, Any]], stereo_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A finished stereo run: 16 bit, discretised logistics, coupled channels."""
    run = tmp_path_factory.mktemp("runs") / "dml"
    launch(run, stereo_folder)
    return run


@pytest.fixture
def sample(composed: Callable[..., DictConfig], dml_run: Path, tmp_path: Path) -> Callable[..., list[Path]]:
    """`sample(*overrides)`: 40 frames on the CPU into a folder of the test; returns the audio files."""

    def go(*overrides: str, checkpoint: Path | None = dml_run, seconds: float = 40 / RATE) -> list[Path]:
        given = () if checkpoint is None else (f"checkpoint={checkpoint}",)
        fixed = (f"seconds={seconds}", "device=cpu", f"out={tmp_path / 'out'}", *given)
        return app_generate.run(composed("generate", *fixed, *overrides))

    return go


@pytest.fixture
def ctrl_c_stays() -> Iterator[None]:
    """Lightning ignores Ctrl-C behind a run that it ended."""
    handler = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.fixture
def cheap_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures of samples have nothing but a title, and their files are text: real ones have tests, and take long."""

    def titled(pcm: np.ndarray, rate: int, title: str, prompt_frames: int = 0) -> Figure:
        figure = Figure((1, 1))
        figure.suptitle(f"{title} {prompt_frames}")
        return figure

    for module in (sheet, evaluation_page, report_command):
        monkeypatch.setattr(module, "sheet", titled)
    monkeypatch.setattr(sheet, "save_png", lambda figure, path: path.write_text(figure.get_suptitle()))


@pytest.fixture(scope="session")
def prompt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """88 stereo frames, 2 ms at 44.1 kHz."""
    path = tmp_path_factory.mktemp("prompt") / "prompt.wav"
    rng = np.random.default_rng(11)
    write_pcm(path, rng.integers(-3000, 3000, (88, 2)).astype(np.int16), 44100)
    return path
