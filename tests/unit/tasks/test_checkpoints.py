"""Files of a run: the checkpoint before the last one stays, and a whole last one is there at every moment."""

import os

import pytest
import torch

from stereo_sashimi.tasks import checkpoints
from stereo_sashimi.tasks.checkpoints import AtomicCheckpointIO


def step_of(path) -> int:
    return torch.load(path, weights_only=True)["step"]


def names(folder) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("hard_links", [True, False])
def test_the_one_before_stays(tmp_path, monkeypatch, hard_links):
    if not hard_links:

        def refuse(*_):
            raise OSError(1, "Operation not permitted")

        monkeypatch.setattr(os, "link", refuse)
    writer, last = AtomicCheckpointIO(), tmp_path / "last.ckpt"
    writer.save_checkpoint({"step": 1}, last)
    assert names(tmp_path) == {"last.ckpt"}
    for step in (2, 3):
        writer.save_checkpoint({"step": step}, last)
        assert (step_of(last), step_of(tmp_path / "previous.ckpt")) == (step, step - 1)
    writer.save_checkpoint({"step": 4}, tmp_path / "best.ckpt")
    writer.save_checkpoint({"step": 5}, tmp_path / "best.ckpt")
    assert names(tmp_path) == {"last.ckpt", "previous.ckpt", "best.ckpt"}


def test_last_is_whole_at_every_moment(tmp_path, monkeypatch):
    writer, last = AtomicCheckpointIO(), tmp_path / "last.ckpt"
    writer.save_checkpoint({"step": 1}, last)
    seen = []

    def watched(call):
        def look(*args):
            seen.append(step_of(last))
            call(*args)
            seen.append(step_of(last))

        return look

    monkeypatch.setattr(checkpoints.os, "link", watched(os.link))
    monkeypatch.setattr(checkpoints.os, "replace", watched(os.replace))
    writer.save_checkpoint({"step": 2}, last)
    assert seen == [1, 1, 1, 1, 1, 2]


def test_a_full_disk_leaves_both(tmp_path, monkeypatch):
    writer, last = AtomicCheckpointIO(), tmp_path / "last.ckpt"
    for step in (1, 2):
        writer.save_checkpoint({"step": step}, last)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        writer.save_checkpoint({"step": 3}, last)
    assert (step_of(last), step_of(tmp_path / "previous.ckpt")) == (2, 1)
    assert names(tmp_path) == {"last.ckpt", "previous.ckpt"}
