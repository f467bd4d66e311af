"""Training on shards is training on the folder they were made of, to the bit, in one piece or cut in mid-epoch."""

from pathlib import Path

import pytest
from running import SIX_STEPS, Clips, assert_same, keep_seeds, last_of

from stereo_sashimi.commands import shards as app_shards

PARTS = ("state_dict", "optimizer_states", "lr_schedulers")


@pytest.fixture(scope="module")
def shards(composed, stereo_folder, tmp_path_factory) -> Path:
    """11 clips of 64 stereo frames in each split, as shards."""
    pytest.importorskip("litdata", reason="litdata is not installed")
    out = tmp_path_factory.mktemp("shards") / "out"
    options = ("dataset=folder", f"dataset.path={stereo_folder}", "dataset.is_stereo=true", "dataset.sample_len=64")
    app_shards.run(composed("shards", *options, f"out={out}"))
    return out


@pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker processes")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_cut_in_mid_epoch_is_the_run_on_the_folder(train, shards, tmp_path, workers):
    options = (*SIX_STEPS, "dataset=shards", "dataset.is_stereo=true", f"loader.num_workers={workers}")
    straight, cut = Clips(), Clips()
    train(*SIX_STEPS, "trainer.max_steps=9", run=tmp_path / "a", watchers=[straight])
    train(*options, "trainer.max_steps=4", run=tmp_path / "b", data=shards, watchers=[cut])
    resume = f"checkpoint={last_of(tmp_path / 'b')}"
    train(*options, "trainer.max_steps=9", resume, run=tmp_path / "c", data=shards, watchers=[cut])
    assert cut.seen == straight.seen
    assert len(straight.seen) == 9
    assert cut.validations[-1] == straight.validations[-1]
    assert_same(tmp_path / "a", tmp_path / "c", *PARTS)


def test_the_command_says_how_to_train(composed, shards, stereo_folder, tmp_path, capsys, monkeypatch):
    keep_seeds(monkeypatch)
    out = tmp_path / "with space"
    options = (f"dataset.path={stereo_folder}", "dataset.sample_len=64", f"out='{out}'")
    app_shards.run(composed("shards", "dataset=musdb18stereo", *options))
    said = capsys.readouterr()
    assert "11 train, 11 valid, 11 test clips" in said.out
    assert f"'dataset.path={out}' dataset.is_stereo=true dataset.sample_len=64" in said.err
    with pytest.raises(ValueError, match="are shards already"):
        app_shards.run(composed("shards", "dataset=shards", f"dataset.path={shards}", f"out={tmp_path / 'more'}"))
