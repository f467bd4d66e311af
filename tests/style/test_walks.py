"""How many files of the package the way of one piece of work passes: a reader has to open them all.

Each way is gone once before it is counted, so that what is done once (imports, compiling, packing) does not count.
"""

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from numba.core.dispatcher import Dispatcher
from numba.extending import _Intrinsic
from omegaconf import DictConfig

from stereo_sashimi.audio.io import write_pcm
from stereo_sashimi.commands.shared.checks import check_keys, check_values
from stereo_sashimi.commands.train import build
from stereo_sashimi.generation.engines.compiled import draw
from stereo_sashimi.generation.sampling import blocks
from stereo_sashimi.models.language_model import LanguageModelConfig
from stereo_sashimi.models.sashimi import SashimiConfig
from stereo_sashimi.nn.embedding import EmbeddingConfig
from stereo_sashimi.nn.heads.head import CategoricalHeadConfig, DMLHeadConfig
from stereo_sashimi.nn.s4 import S4Config
from stereo_sashimi.spec import AudioSpec

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "stereo_sashimi"


def files_of(work: Callable[[], Any]) -> set[str]:
    """The files of the package with a Python function that `work` calls, in this thread."""
    called = set()

    def look(frame, event, _):
        # Bodies of modules and classes are no functions.
        if event == "call" and frame.f_code.co_flags & inspect.CO_OPTIMIZED:
            called.add(frame.f_code.co_filename)

    sys.setprofile(look)
    try:
        work()
    finally:
        sys.setprofile(None)
    return {path.relative_to(PACKAGE).as_posix() for path in map(Path, called) if path.is_relative_to(PACKAGE)}


def compiled_files_of(function: Dispatcher) -> set[str]:
    """The files of the package that a function of numba is made of: those of the functions that it names, and so on."""
    todo, seen = [function], {}
    while todo:
        found = todo.pop()
        plain = getattr(found, "py_func", None) or getattr(found, "_defn", None) or found
        if not isinstance(found, Dispatcher | _Intrinsic | FunctionType) or plain in seen:
            continue
        path = Path(inspect.getsourcefile(plain))
        if path.is_relative_to(PACKAGE):
            seen[plain] = path.relative_to(PACKAGE).as_posix()
            # An intrinsic makes LLVM instructions: no other one is called there.
            names = () if isinstance(found, _Intrinsic) else plain.__code__.co_names
            todo += [plain.__globals__[name] for name in names if name in plain.__globals__]
    return set(seen.values())


@pytest.mark.parametrize("head", [CategoricalHeadConfig("autoregressive"), DMLHeadConfig("autoregressive", 3)])
def test_a_frame_of_the_compiled_engine(head, monkeypatch):
    """From the loop over blocks down to the call of numba, and everything inside that."""
    backbone = SashimiConfig(d_model=4, n_layers=1, pool=(2,), layer=S4Config(d_state=4))
    model = LanguageModelConfig(AudioSpec(16000, 2, 8), EmbeddingConfig(4), backbone, head).build().eval()
    drawn, run, compiled = (
        blocks(model, None, [0], engine="compiled", block_frames=1),
        draw.run,
        compiled_files_of(draw.run),
    )
    next(drawn)

    def reached(*args):
        sys.setprofile(None)
        return run(*args)

    monkeypatch.setattr(draw, "run", reached)
    files = files_of(lambda: next(drawn)) | compiled
    assert {"generation/stream.py", "generation/engines/compiled/step.py", "ops/cpu/vector_math.py"} <= files
    assert len(files) <= 10, sorted(files)


@pytest.fixture
def cfg(tmp_path) -> DictConfig:
    for split in ("train", "valid", "test"):
        (tmp_path / split).mkdir()
        write_pcm(tmp_path / split / "a.wav", np.arange(800, dtype=np.int16).reshape(400, 2), 44100)
    overrides = [
        *("experiment=audio/sashimi-sample", "trainer=cpu", "model=sashimi_tiny", "model.n_layers=1"),
        *(f"dataset.path={tmp_path}", "dataset.sample_len=64", f"paths.run={tmp_path / 'run'}"),
    ]
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        return compose("train", overrides)


def to_trainer(cfg: DictConfig) -> tuple[Any, Any]:
    """Data and task, behind all that `train` does until there is a trainer."""
    check_keys(cfg)
    check_values(cfg)
    data = build.build_datamodule(cfg)
    data.setup("fit")
    task = build.build_task(cfg, build.build_model_config(cfg, data), data)
    build.build_trainer(cfg)
    return data, task


def test_from_yaml_to_the_trainer(cfg):
    to_trainer(cfg)
    files = files_of(lambda: to_trainer(cfg))
    assert "commands/train/build.py" in files
    assert len(files) <= 31, sorted(files)


def test_a_batch_from_the_file_to_the_loss(cfg):
    data, task = to_trainer(cfg)
    task.log = task.log_dict = lambda *args, **fields: None
    loader = data.train_dataloader()

    def one_batch():
        task.training_step(next(iter(loader)), 0)

    one_batch()
    files = files_of(one_batch)
    assert {"data/dataset.py", "models/sashimi.py"} <= files
    assert len(files) <= 22, sorted(files)
