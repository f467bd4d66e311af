"""Folders that ship their split as lists of files, as SC09 does. Other splits are in `test_dataset.py`."""

import numpy as np
import pytest

from stereo_sashimi.audio.io import write_pcm
from stereo_sashimi.data.datamodule import AudioDataModule
from stereo_sashimi.data.split import DataError, split_folder

FILES = ("zero/b_1.wav", "zero/a_2.wav", "one/a_1.wav", "one/b_10.wav", "one/b_9.wav")


@pytest.fixture
def digits(tmp_path):
    for number, name in enumerate(FILES):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_pcm(tmp_path / name, np.full((20 + number, 1), number, np.int16), 16000)
    # The lists that are shipped name words of the larger data set, too.
    (tmp_path / "validation_list.txt").write_text("one/b_10.wav\nzero/a_2.wav\nbird/c_0.wav\n")
    (tmp_path / "testing_list.txt").write_text("one/a_1.wav\r\n\n")
    return tmp_path


def test_lists_are_the_split(digits):
    split = split_folder(digits, 0.88)
    names = {key: [path.relative_to(digits).as_posix() for path in paths] for key, paths in split.items()}
    assert names == {
        "train": ["one/b_9.wav", "zero/b_1.wav"],
        "valid": ["one/b_10.wav", "zero/a_2.wav"],
        "test": ["one/a_1.wav"],
    }


def test_short_digits_are_kept_and_padded(digits):
    data = AudioDataModule(name="sc09", path=str(digits), bits=8, sample_len=24, drop_last=False, batch_size=2)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert sorted(batch.lengths.tolist()) == [20, 24]
    assert batch.codes.shape == (2, 24, 1)


def test_subfolders_come_first(digits):
    for split in ("train", "valid", "test"):
        (digits / split).mkdir()
        write_pcm(digits / split / "x.wav", np.zeros((8, 1), np.int16), 16000)
    assert [path.name for path in split_folder(digits, 0.88)["valid"]] == ["x.wav"]


@pytest.mark.parametrize("name", ["validation_list.txt", "testing_list.txt"])
def test_a_list_without_its_twin_is_refused(digits, name):
    (digits / name).unlink()
    with pytest.raises(DataError, match=f"{name} is missing"):
        split_folder(digits, 0.88)


def test_a_file_in_both_lists_is_refused(digits):
    (digits / "testing_list.txt").write_text("one/a_1.wav\nzero/a_2.wav\n")
    with pytest.raises(DataError, match=r"zero/a_2\.wav is in both validation_list\.txt and testing_list\.txt"):
        split_folder(digits, 0.88)


@pytest.mark.parametrize(
    ("text", "split"), [("one/nothing.wav\n", "test"), ("zero/b_1.wav\none/a_1.wav\none/b_9.wav", "train")]
)
def test_an_empty_split_is_named(digits, text, split):
    (digits / "testing_list.txt").write_text(text)
    with pytest.raises(DataError, match=rf"leave no audio file .* for {split}, of 5 in all"):
        split_folder(digits, 0.88)


@pytest.mark.parametrize("text", ["\ufeffone/a_1.wav\n", "./one/a_1.wav\n", "one\\a_1.wav\r\n"])
def test_lists_of_other_systems_are_read(digits, text):
    (digits / "testing_list.txt").write_text(text, encoding="utf-8")
    assert [path.name for path in split_folder(digits, 0.88)["test"]] == ["a_1.wav"]


def test_a_list_that_is_no_text_is_named(digits):
    (digits / "testing_list.txt").write_bytes(b"\xff\xfe\x00one")
    with pytest.raises(DataError, match=r"testing_list\.txt is no UTF-8 text"):
        split_folder(digits, 0.88)
