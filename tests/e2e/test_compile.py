"""`compile=true`: no graph break on the hot path, the losses of eager training, and nothing of it in any file.

The tests' checks of shapes would break torch.compile's graphs, so that compiled training has processes of its own.
"""

import os
import subprocess
import sys

import pytest
import torch
from running import ROOT, finish

from stereo_sashimi.models.checkpoint import load
from stereo_sashimi.models.torch_compile import check_compiler
from stereo_sashimi.ops.backend_error import BackendError

pytestmark = pytest.mark.timeout(900)


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": str(ROOT / "src")} | environment
    return subprocess.run([sys.executable, *words], cwd=ROOT, env=env, capture_output=True, text=True, timeout=850)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(
    ("words", "said"),
    [("trace", 7 * ["one graph"]), ("train dml", ["graphs"]), ("train categorical", ["graphs"]),
     ("train mixed", ["graphs"])],
)  # fmt: skip
def test_no_graph_breaks_and_ten_steps_have_the_losses_of_eager_ones(words, said):
    result = run("tests/e2e/compile_script.py", *words.split())
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.count(said[0]) == len(said)


@pytest.mark.slow
@pytest.mark.long
def test_a_compiled_run_leaves_what_an_eager_one_leaves(train, tmp_path, stereo_folder, small):
    """Trained with averaged weights, resumed without compile, and loaded."""
    words = [
        *("experiment=audio/sashimi-sample", *small, "model.pool=[]", "callbacks=ema", "callbacks.samples=null"),
        *(f"dataset.path={stereo_folder}", "logger=none", "trainer.precision=bf16-mixed"),
        *("activation_checkpointing=true", "scheduler.total_steps=6", "scheduler.warmup_steps=1"),
    ]
    first = tmp_path / "first"
    result = run("train.py", *words, "compile=true", "trainer.max_steps=2", f"paths.run={first}")
    assert result.returncode == 0, result.stderr
    assert "precision bf16-mixed  compiled  activation checkpointing" in result.stdout
    assert "complex" not in result.stderr
    last = first / "checkpoints" / "last.ckpt"
    content = torch.load(last, weights_only=True)
    assert not [name for name in content["state_dict"] if "_orig_mod" in name]
    assert not {"compile", "activation_checkpointing"} & set(content["hyper_parameters"])
    resumed = train(f"checkpoint={last}", "trainer.max_steps=4", run=tmp_path / "second", base=words)
    assert resumed["steps"] == 4
    model = load(last)
    assert bool(model.log_prob(torch.zeros(1, 5, 2, dtype=torch.int64)).isfinite().all())


@pytest.mark.slow
@pytest.mark.long
def test_without_a_compiler_nothing_begins(tmp_path, stereo_folder, small):
    words = ("experiment=audio/sashimi-sample", *small, f"dataset.path={stereo_folder}", "compile=true")
    run_folder = f"paths.run={tmp_path / 'run'}"
    _, err = finish(*words, run_folder, code=1, cwd=tmp_path, CXX=str(tmp_path / "no-compiler"))
    for said in ("compile=true does not run here (InductorError: InvalidCxxCompiler", "apt install g++",
                 "or use compile=false."):  # fmt: skip
        assert said in err
    assert not (tmp_path / "run").exists()


def test_what_fails_and_what_computes_nonsense_is_told(monkeypatch):
    def broken(x):
        raise RuntimeError("\nno such compiler\nmore")

    check_compiler.cache_clear()
    monkeypatch.setattr("stereo_sashimi.models.torch_compile.one_graph", lambda function: broken)
    message = r"^compile=true does not run here \(RuntimeError: no such compiler\)\. On cpu"
    with pytest.raises(BackendError, match=message):
        check_compiler(torch.device("cpu"))
    monkeypatch.setattr("stereo_sashimi.models.torch_compile.one_graph", lambda function: lambda x: function(x) + 1)
    with pytest.raises(BackendError, match="wrong numbers here"):
        check_compiler(torch.device("cpu"))
    monkeypatch.setattr("stereo_sashimi.models.torch_compile.one_graph", lambda function: function)
    check_compiler(torch.device("cpu"))
    check_compiler.cache_clear()
