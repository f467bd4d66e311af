"""Shards: their batches are those of the folder they were made of, and what does not fit is refused."""

import json
import pickle
import shutil
import sys
from pathlib import Path

import pytest
import torch
from tracks import module

from stereo_sashimi.data.shard_folder import INDEX, ShardDataModule, Shards, write_shards
from stereo_sashimi.data.split import SPLITS, DataError

# Two clips of 16 stereo frames, so that a split has several shards.
SMALL = 2 * 16 * 4


@pytest.fixture(scope="module")
def shards(folder, tmp_path_factory):
    """The shards of `folder`."""
    pytest.importorskip("litdata", reason="litdata is not installed")
    out = tmp_path_factory.mktemp("shards") / "out"
    assert write_shards(module(folder, drop_last=False), out, shard_bytes=SMALL) == {"train": 11, "valid": 6, "test": 3}
    return out


def of_shards(path, **options):
    return ShardDataModule(**{"name": "shards", "path": str(path), "is_stereo": True, "sample_len": 16} | options)


def batches(data, epochs=2):
    """Batches of all loaders, of training over some epochs."""
    data.setup()
    loader, found = data.train_dataloader(), []
    for epoch in range(epochs):
        loader.sampler.set_epoch(epoch)
        found += loader
    return [*found, *data.val_dataloader(), *data.test_dataloader()]


def assert_equal(given, expected):
    assert len(given) == len(expected)
    for one, other in zip(given, expected, strict=True):
        for a, b in zip(one, other, strict=True):
            assert (a is None and b is None) or torch.equal(a, b)


@pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker processes")
@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"drop_last": False, "train_chunk_size": 4, "val_chunk_size": 3, "seed": 5},
        {"warm_up": 40, "drop_last": False},
        {"carry_state": True, "batch_size": 2},
    ],
    ids=["defaults", "chunks", "warm-up", "carried"],
)
def test_batches_are_those_of_the_folder(folder, shards, options, num_workers):
    options = {"batch_size": 3} | options
    expected = batches(module(folder, **options))
    assert_equal(batches(of_shards(shards, num_workers=num_workers, **options)), expected)
    assert any(batch.codes.float().std() > 0 for batch in expected)


def test_a_split_has_several_shards_and_a_description_without_this_machine(folder, shards):
    for split in SPLITS:
        assert len(list((shards / split).glob("*.bin"))) > 1
    assert str(folder) not in (shards / "train" / INDEX).read_text()
    data, files = of_shards(shards), module(folder)
    data.setup()
    files.setup()
    for clip in range(len(files.datasets["train"])):
        path, start = data.datasets["train"].describe(clip)
        assert (folder / path, start) == files.datasets["train"].describe(clip)
    assert (data.spec, data.datasets["valid"].seconds) == (files.spec, files.datasets["valid"].seconds)


def test_a_copy_for_a_new_process_opens_its_shards_itself(shards):
    one = Shards(str(shards / "train"))
    clip = one.read(3)
    other = pickle.loads(pickle.dumps(one))
    assert other._opened is None
    assert (other.read(3) == clip).all()


def test_clips_of_a_host_are_read_by_range_and_no_shard_is_kept(shards, tmp_path, monkeypatch):
    downloader = pytest.importorskip("litdata.streaming.downloader", reason="litdata is not installed")
    ranges = []

    class Host(downloader.LocalDownloader):
        def download_file(self, remote_filepath, local_filepath):
            super().download_file(remote_filepath.replace("s3://bucket", str(shards.parent)), local_filepath)

        def download_bytes(self, remote_chunkpath, offset, length, local_chunkpath):
            ranges.append(length)
            content = Path(remote_chunkpath.replace("s3://bucket", str(shards.parent))).read_bytes()
            return content[offset : offset + length]

    monkeypatch.setitem(downloader._DOWNLOADERS, "s3://", Host)
    monkeypatch.setattr("litdata.utilities.dataset_utilities._LITDATA_CACHE_DIR", str(tmp_path))
    assert_equal(batches(of_shards("s3://bucket/out", batch_size=3)), batches(of_shards(shards, batch_size=3)))
    assert ranges
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {INDEX}


def test_a_host_that_does_not_answer_is_named(monkeypatch, tmp_path):
    downloader = pytest.importorskip("litdata.streaming.downloader", reason="litdata is not installed")

    class Host(downloader.LocalDownloader):
        def download_file(self, remote_filepath, local_filepath):
            raise ConnectionError("nobody there")

    monkeypatch.setitem(downloader._DOWNLOADERS, "s3://", Host)
    monkeypatch.setattr("litdata.utilities.dataset_utilities._LITDATA_CACHE_DIR", str(tmp_path))
    with pytest.raises(DataError, match=r"s3://bucket/out/train: litdata cannot read its index\.json \(nobody there"):
        of_shards("s3://bucket/out").setup()


def test_nothing_half_written_stays(folder, tmp_path):
    pytest.importorskip("litdata", reason="litdata is not installed")

    def stop(done, total):
        if done == 12:
            raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        write_shards(module(folder, drop_last=False), out, stop)
    assert list(tmp_path.iterdir()) == []
    # What a process left that could not tidy up.
    (tmp_path / ".out.part" / "train").mkdir(parents=True)
    (tmp_path / ".out.part" / "train" / "chunk-0-7.bin").write_bytes(b"half")
    write_shards(module(folder, drop_last=False), out)
    assert list(tmp_path.iterdir()) == [out]
    assert len(list((out / "train").glob("*.bin"))) == 1
    with pytest.raises(DataError, match="is there already"):
        write_shards(module(folder), out)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sample_len": 32}, r"dataset\.sample_len=32, but .*train has 16 frames a clip, not 32"),
        ({"sample_rate": 16000}, r"dataset\.sample_rate=16000, but .*train has 8000 Hz, not 16000"),
        ({"is_stereo": False}, r"dataset\.is_stereo=false, but .*train has 2 channels, not 1"),
        ({"context_len": 99, "sample_len": 16}, r"context_len must be below"),
    ],
)
def test_what_the_shards_do_not_have_is_refused(shards, options, words):
    with pytest.raises(DataError, match=words):
        of_shards(shards, **options).setup()


def test_splits_of_different_shards_are_refused(shards, tmp_path):
    mixed = shutil.copytree(shards, tmp_path / "mixed")
    content = json.loads((mixed / "valid" / INDEX).read_text())
    content["audio"]["sample_rate"] = 9000
    (mixed / "valid" / INDEX).write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"sample_rate=null, but .*valid has 9000 Hz, not 8000"):
        of_shards(mixed).setup()


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-1])])
def test_missing_and_cut_shards_are_named(shards, tmp_path, spoil):
    other = shutil.copytree(shards, tmp_path / "other")
    spoil(other / "valid" / "chunk-0-1.bin")
    with pytest.raises(DataError, match=r"other/valid/chunk-0-1\.bin is not there with its [\d,]+ bytes"):
        of_shards(other).setup()


def test_folders_without_shards_are_refused(folder, tmp_path, shards):
    for path in (tmp_path, tmp_path / "none", folder):
        with pytest.raises(DataError, match=f"no shards in {path}/train"):
            of_shards(path).setup()
    other = shutil.copytree(shards, tmp_path / "other")
    for text in ('{"chunks": [], "config": {}}', "half"):
        (other / "train" / INDEX).write_text(text)
        with pytest.raises(DataError, match="not written by `stereo-sashimi shards`"):
            of_shards(other).setup()
    with pytest.raises(DataError, match=r"hf://a/b/train: shards are read from a folder, s3://, r2://, gs://\."):
        of_shards("hf://a/b").setup()


def test_without_litdata_the_extra_is_named(folder, tmp_path, monkeypatch):
    for name in ("litdata", "litdata.streaming.writer"):
        monkeypatch.setitem(sys.modules, name, None)
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / INDEX).write_text("{}")
    with pytest.raises(DataError, match=r"pip install 'stereo-sashimi\[litdata\]'"):
        of_shards(tmp_path).setup()
    with pytest.raises(DataError, match=r"pip install 'stereo-sashimi\[litdata\]'"):
        write_shards(module(folder), tmp_path / "out")
    assert not (tmp_path / "out").exists()
