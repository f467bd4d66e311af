"""A damaged checkpoint: the whole one beside it is named, and only if it is whole."""

import pytest
import torch

from stereo_sashimi.commands.shared.loading import intact, offering
from stereo_sashimi.models.checkpoint import CheckpointError, read


def write(path, step: int) -> None:
    model = {"spec": {}}
    torch.save({"hyper_parameters": {"model": model}, "state_dict": {}, "global_step": step}, path)


def truncate(path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.fixture
def folder(tmp_path):
    for name, step in (("last", 30), ("previous", 20), ("best", 10)):
        write(tmp_path / f"{name}.ckpt", step)
    return tmp_path


def test_what_is_damaged_itself_is_not_offered(folder):
    truncate(folder / "previous.ckpt")
    assert intact(folder / "last.ckpt") == (folder / "best.ckpt", 10)
    truncate(folder / "best.ckpt")
    assert intact(folder / "last.ckpt") is None
    truncate(folder / "last.ckpt")
    with (
        pytest.raises(CheckpointError, match=r"truncated or not a checkpoint \(no zip archive\)\.$"),
        offering(folder / "last.ckpt"),
    ):
        read(folder / "last.ckpt")


def test_a_missing_one_and_another_name(folder):
    (folder / "last.ckpt").unlink()
    assert intact(folder / "last.ckpt") == (folder / "previous.ckpt", 20)
    assert intact(folder / "mine.ckpt") == (folder / "previous.ckpt", 20)
    assert intact(folder / "previous.ckpt") == (folder / "best.ckpt", 10)


def test_a_whole_one_passes(folder):
    with offering(folder / "last.ckpt"):
        assert read(folder / "last.ckpt")["global_step"] == 30
