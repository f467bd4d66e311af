"""Trust in what is on disk: a damaged checkpoint names a whole one, and equal runs leave equal files."""

import re
import shutil
from pathlib import Path

import pytest
import torch

from stereo_sashimi.commands.generate import generate_command as generate
from stereo_sashimi.models.checkpoint import CheckpointError

OPTIONS = ("dataset.bits=8", "decoder=categorical", "encoder.init=normal", "logger=none", "loader.batch_size=2",
           "scheduler.total_steps=20", "train.validate_before=false", "model.dropout=0.2")  # fmt: skip


def content(run: Path) -> dict:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


def same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


@pytest.fixture(scope="module")
def trained(launch, stereo_folder, tmp_path_factory) -> Path:
    """A run of three steps, each saved."""
    run = tmp_path_factory.mktemp("trained")
    launch(run, stereo_folder, *OPTIONS, "trainer.max_steps=3", "callbacks.last.every_n_train_steps=1")
    return run


@pytest.fixture
def damaged(trained, tmp_path) -> Path:
    """A copy of it whose last.ckpt was cut off."""
    run = tmp_path / "damaged"
    shutil.copytree(trained, run)
    last = run / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:-3000])
    return run


def test_the_end_is_written_once(trained):
    # Three steps: last.ckpt is the third, previous.ckpt the second and not the third again.
    assert content(trained)["global_step"] == 3
    assert torch.load(trained / "checkpoints" / "previous.ckpt", weights_only=True)["global_step"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("end", ["trainer.max_epochs=1", "trainer.max_steps=4"])
def test_a_run_that_had_ended_goes_on_without_an_empty_epoch(train, tmp_path, end):
    # Six steps an epoch; counters and validations every second epoch are those of the run in one piece.
    options = (*OPTIONS, "trainer.check_val_every_n_epoch=2")
    longer = ("trainer.max_steps=-1", "trainer.max_epochs=2")
    train(*options, *longer, run=tmp_path / "whole")
    train(*options, "trainer.max_steps=-1", end, run=tmp_path / "ended")
    last = tmp_path / "ended" / "checkpoints" / "last.ckpt"
    result = train(*options, *longer, f"checkpoint={last}", run=tmp_path / "longer")
    assert result["steps"] == 12
    assert (tmp_path / "longer" / "checkpoints" / "best.ckpt").is_file()
    a, b = content(tmp_path / "whole"), content(tmp_path / "longer")
    assert [part for part in a if part != "callbacks" and not same(a[part], b[part])] == []


def test_a_damaged_checkpoint_offers_the_one_before(train, damaged, tmp_path):
    with pytest.raises(CheckpointError, match="truncated") as caught:
        train(*OPTIONS, "trainer.max_steps=4", f"checkpoint={damaged / 'checkpoints' / 'last.ckpt'}")
    override = re.search(r"whole \(step 2\)\. Use (checkpoint=\S+)$", str(caught.value))
    assert override is not None
    # The override does what it says, and the run ends as if nothing had happened.
    train(*OPTIONS, "trainer.max_steps=4", override[1], run=tmp_path / "rest")
    train(*OPTIONS, "trainer.max_steps=4", run=tmp_path / "whole")
    a, b = content(tmp_path / "rest"), content(tmp_path / "whole")
    assert all(same(a[part], b[part]) for part in ("state_dict", "optimizer_states", "lr_schedulers", "resume"))


def test_sampling_offers_it_too(composed, damaged):
    cfg = composed("generate", f"checkpoint={damaged / 'checkpoints' / 'last.ckpt'}", "seconds=0.001", "device=cpu")
    with pytest.raises(CheckpointError, match=r"previous\.ckpt beside it is whole \(step 2\)\. Use checkpoint="):
        generate.run(cfg)


def test_leftovers_of_a_killed_run_go_with_the_next_start(train, damaged, stereo_folder):
    folder = damaged / "checkpoints"
    (folder / ".last.ckpt.0123abcd.part").write_bytes(b"half")
    train(*OPTIONS, "trainer.max_steps=4", f"checkpoint={folder / 'previous.ckpt'}", run=damaged)
    assert not list(folder.glob(".*"))
    assert content(damaged)["global_step"] == 4


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_deterministic_runs_are_equal_to_the_bit(train, tmp_path, monkeypatch, workers):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    enabled = []
    monkeypatch.setattr(
        "stereo_sashimi.tasks.AutoregressiveTask.on_train_start",
        lambda self: enabled.append(torch.are_deterministic_algorithms_enabled()),
    )
    options = (*OPTIONS, "trainer.deterministic=true", "trainer.max_steps=4")
    try:
        train(*options, run=tmp_path / "a")
        # Other draws in between must not reach the run.
        torch.rand(7)
        train(*options, f"loader.num_workers={workers}", run=tmp_path / "b")
    finally:
        torch.use_deterministic_algorithms(False)
    assert enabled == [True, True]
    a, b = content(tmp_path / "a"), content(tmp_path / "b")
    if workers:
        # Beartype draws from python's generator when it looks into lists, which workers have taken over here.
        for state in (*a["resume"]["random_states"], *b["resume"]["random_states"]):
            del state["python"]
    assert [part for part in a if part != "callbacks" and not same(a[part], b[part])] == []
    other = train(*options, "train.seed=1", "trainer.deterministic=false", run=tmp_path / "c")
    assert other["steps"] == 4
    assert not same(content(tmp_path / "c")["state_dict"], a["state_dict"])
