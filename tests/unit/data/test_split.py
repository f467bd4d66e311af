"""Which files there are, and which split each is in."""

import pytest
from audio_files import make_file
from hypothesis import given, settings
from hypothesis import strategies as st

from stereo_sashimi.data.split import DataError, find_audio, split_folder, split_points


def test_files_are_found_recursively_in_natural_order(tmp_path):
    for name in ("b/track10.wav", "b/track2.flac", "a.WAV", "b/.hidden.wav", ".cache/x.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "notes.txt").touch()
    names = [path.relative_to(tmp_path).as_posix() for path in find_audio(tmp_path)]
    assert names == ["a.WAV", "b/track2.flac", "b/track10.wav"]


@given(n=st.integers(3, 2000), percentage=st.floats(0.01, 0.99))
@settings(deadline=None, max_examples=100)
def test_split_points_leave_no_part_empty(n, percentage):
    train, valid = split_points(n, percentage)
    assert 0 < train < valid < n
    assert abs(train - n * percentage) <= 2
    # The rest is halved.
    assert abs((valid - train) - (n - valid)) <= 2


def test_split_by_order():
    assert split_points(100, 0.88) == (88, 94)
    assert split_points(25, 0.88) == (22, 23)
    assert split_points(3, 0.88) == (1, 2)


def test_split_of_a_flat_folder(tmp_path):
    for index in range(12):
        make_file(tmp_path / f"take{index}.wav", 10)
    split = split_folder(tmp_path, 0.75)
    assert [len(split[name]) for name in ("train", "valid", "test")] == [9, 1, 2]
    assert [path.name for path in split["test"]] == ["take10.wav", "take11.wav"]


@pytest.mark.parametrize("valid", ["valid", "val"])
def test_subfolders_are_the_split(tmp_path, valid):
    for name in ("train/x/1.wav", "train/2.wav", f"{valid}/3.wav", "test/4.wav", "loose.wav"):
        make_file(tmp_path / name, 10)
    split = split_folder(tmp_path, 0.5)
    assert {k: [p.name for p in v] for k, v in split.items()} == {
        "train": ["2.wav", "1.wav"],
        "valid": ["3.wav"],
        "test": ["4.wav"],
    }


def test_split_errors_name_the_folder_and_the_remedy(tmp_path):
    with pytest.raises(DataError, match=r"no folder .*nowhere(.|\n)*musdb18stereo_wav.py"):
        split_folder(tmp_path / "nowhere", 0.88)
    make_file(tmp_path / "one.wav", 10)
    with pytest.raises(DataError, match=r"holds 1 audio files(.|\n)*subfolders train/, valid/ and test/"):
        split_folder(tmp_path, 0.88)
    make_file(tmp_path / "train" / "one.wav", 10)
    with pytest.raises(DataError, match="valid/ is missing"):
        split_folder(tmp_path, 0.88)
    (tmp_path / "valid").mkdir()
    with pytest.raises(DataError, match="valid/ is empty"):
        split_folder(tmp_path, 0.88)
    (tmp_path / "val").mkdir()
    with pytest.raises(DataError, match=r"both valid/ and val/"):
        split_folder(tmp_path, 0.88)
