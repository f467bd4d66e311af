"""Trust in what is on disk: a damaged checkpoint names a whole one, and equal runs leave equal files."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from running import DROPOUT, SIX_STEPS, assert_same, differences, last_of, saved

from stereo_sashimi.commands.generate import generate_command as generate
from stereo_sashimi.models.checkpoint import CheckpointError

OPTIONS = (*SIX_STEPS, DROPOUT)


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
    last_of(run).write_bytes(last_of(run).read_bytes()[:-3000])
    return run


def test_the_end_is_written_once(trained):
    # Three steps: last.ckpt is the third, previous.ckpt the second and not the third again.
    assert saved(trained)["global_step"] == 3
    assert saved(trained, "previous")["global_step"] == 2


def test_a_damaged_checkpoint_offers_the_one_before(train, composed, damaged, tmp_path):
    last = f"checkpoint={last_of(damaged)}"
    with pytest.raises(CheckpointError, match=r"previous\.ckpt beside it is whole \(step 2\)\. Use checkpoint="):
        generate.run(composed("generate", last, "seconds=0.001", "device=cpu"))
    with pytest.raises(CheckpointError, match="truncated") as caught:
        train(*OPTIONS, "trainer.max_steps=4", last)
    override = re.search(r"whole \(step 2\)\. Use (checkpoint=\S+)$", str(caught.value))
    assert override is not None
    # The override does what it says, and the run ends as if nothing had happened.
    train(*OPTIONS, "trainer.max_steps=4", override[1], run=tmp_path / "rest")
    train(*OPTIONS, "trainer.max_steps=4", run=tmp_path / "whole")
    assert_same(tmp_path / "rest", tmp_path / "whole", "state_dict", "optimizer_states", "lr_schedulers", "resume")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
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
    assert_same(tmp_path / "a", tmp_path / "b", *(saved(tmp_path / "a").keys() - {"callbacks"}))
    train(*options, "train.seed=1", "trainer.deterministic=false", run=tmp_path / "c")
    assert differences(saved(tmp_path / "c")["state_dict"], saved(tmp_path / "a")["state_dict"])
