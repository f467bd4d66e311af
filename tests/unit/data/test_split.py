"""Which files there are, and which split each is in: by subfolders, by lists as SC09 ships them, by order, by hash."""

import re
import unicodedata
from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stereo_sashimi.data.split import (
    SPLITS,
    DataError,
    doubt,
    duration,
    find_audio,
    listed,
    other_kinds,
    split_folder,
    split_points,
)


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def names(folder, *args, **options):
    """Relative paths of each split."""
    files = split_folder(folder, *(args or (0.88,)), **options).files
    return {split: [path.relative_to(folder).as_posix() for path in members] for split, members in files.items()}


def test_files_are_found_recursively_in_natural_order(tmp_path):
    touch(tmp_path, "b/track10.wav", "b/track2.flac", "a.WAV", "b/.hidden.wav", ".cache/x.wav", "notes.txt")
    touch(tmp_path, "x.MP3", "b/y.mp3", "z.m4a", ".cache/z.mp3")
    found = [path.relative_to(tmp_path).as_posix() for path in find_audio(tmp_path)]
    assert found == ["a.WAV", "b/track2.flac", "b/track10.wav"]
    assert other_kinds(tmp_path) == "2 .mp3, 1 .m4a"


@given(n=st.integers(3, 2000), percentage=st.floats(0.01, 0.99))
@settings(deadline=None, max_examples=100)
def test_split_points_leave_no_part_empty(n, percentage):
    train, valid = split_points(n, percentage)
    assert 0 < train < valid < n
    assert abs(train - n * percentage) <= 2
    # The rest is halved.
    assert abs((valid - train) - (n - valid)) <= 2
    assert [split_points(n, 0.88) for n in (100, 25, 3)] == [(88, 94), (22, 23), (1, 2)]


def test_a_split_by_order(tmp_path):
    touch(tmp_path, *(f"take{index}.wav" for index in range(12)))
    found = names(tmp_path, 0.75)
    assert [len(found[split]) for split in SPLITS] == [9, 1, 2]
    assert found["test"] == ["take10.wav", "take11.wav"]
    assert split_folder(tmp_path, 0.75).rule == "by order of names"


def test_a_split_by_hash_stays_when_files_come_and_go(tmp_path):
    takes = [f"album {i % 7}/take{i}.wav" for i in range(400)]
    touch(tmp_path, *takes)
    before = names(tmp_path, 0.8, rule="hash")
    assert split_folder(tmp_path, 0.8, rule="hash").rule == "by hash of names"
    assert sorted(chain(*before.values())) == sorted(takes)
    assert [len(before[split]) for split in SPLITS] == pytest.approx([320, 40, 40], abs=20)
    assert before["train"] != names(tmp_path, 0.8)["train"]
    assert before != names(tmp_path, 0.8, rule="hash", seed=1)
    touch(tmp_path, *(f"new{i}.wav" for i in range(50)))
    gone = before["valid"][0]
    after = names(tmp_path, 0.8, rule="hash", exclude=[gone])
    for split in SPLITS:
        assert [name for name in after[split] if not name.startswith("new")] == [n for n in before[split] if n != gone]


@pytest.mark.parametrize("n", [3, 4, 9])
def test_few_files_by_hash_leave_no_split_empty_and_say_so(tmp_path, n):
    takes = [f"Ünder {i}.wav" for i in range(n)]
    touch(tmp_path, *takes)
    split = split_folder(tmp_path, 0.95, rule="hash")
    assert split.rule.startswith("by order of the hashes of names, as a split of so few files would be empty")
    assert [len(split.files[name]) for name in SPLITS] == [n - 2, 1, 1]
    # Names as macOS keeps them are the same names.
    other = touch(tmp_path / "other", *(unicodedata.normalize("NFD", take) for take in takes))
    decomposed = names(other, 0.95, rule="hash")
    assert {k: [unicodedata.normalize("NFC", f) for f in v] for k, v in decomposed.items()} == {
        k: [path.name for path in v] for k, v in split.files.items()
    }


@pytest.mark.parametrize("valid", ["valid", "val"])
def test_subfolders_are_the_split_before_anything_else(tmp_path, valid):
    touch(tmp_path, "train/x/1.wav", "train/2.wav", f"{valid}/3.wav", "test/4.wav", "loose.wav", "testing_list.txt")
    for rule in ("order", "hash"):
        assert names(tmp_path, 0.5, rule=rule) == {
            "train": ["train/2.wav", "train/x/1.wav"],
            "valid": [f"{valid}/3.wav"],
            "test": ["test/4.wav"],
        }
    assert names(tmp_path, exclude=["train/2.wav"])["train"] == ["train/x/1.wav"]


def test_what_is_left_out_is_told(tmp_path):
    touch(tmp_path, "a.wav", "b.wav", "c.wav", "d/[x], y.wav", "song.mp3", "phone.m4a", "tape.mp3")
    split = split_folder(tmp_path, 0.5, exclude=["d/[x], y.wav"])
    assert split.left_out == "1 excluded, 2 .mp3, 1 .m4a"
    assert list(chain(*split.files.values())) == [tmp_path / f"{name}.wav" for name in "abc"]


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        (None, {"prepare": "python make.py"}, r"no folder .*nowhere\.\n.*, or make it: `python make\.py`\."),
        (
            ("1.wav", "a.mp3"),
            {},
            r"holds 1 audio files \(.*\) and 1 \.mp3, which are not read; .*\n.*subfolders train/",
        ),
        (("train/1.wav",), {}, "valid/ is missing"),
        (("train/1.wav", "valid/notes.txt"), {"prepare": "python make.py"}, r"valid/ is empty\.\n.*`python make\.py`"),
        (("train/1.wav", "valid/1.mp3"), {}, r"valid/ is empty but for 1 \.mp3, which are not read"),
        (("1.wav", "2.wav", "3.wav"), {"exclude": ["3.wav"]}, "holds 2 audio files"),
    ],
)
def test_errors_name_the_folder_and_the_remedy(tmp_path, files, options, message):
    folder = tmp_path / "nowhere" if files is None else touch(tmp_path, *files)
    with pytest.raises(DataError, match=message):
        split_folder(folder, 0.88, **options)


@pytest.fixture
def digits(tmp_path):
    touch(tmp_path, "zero/b_1.wav", "zero/a_2.wav", "one/a_1.wav", "one/b_10.wav", "one/b_9.wav")
    # The lists that are shipped name words of the larger data set, too.
    (tmp_path / "validation_list.txt").write_text("one/b_10.wav\nzero/a_2.wav\nbird/c_0.wav\n")
    (tmp_path / "testing_list.txt").write_text("one/a_1.wav\r\n\n")
    return tmp_path


# As other systems write them, too.
@pytest.mark.parametrize("text", [None, "\ufeffone/a_1.wav\n", "./one/a_1.wav\n", "one\\a_1.wav\r\n"])
def test_lists_are_the_split(digits, text):
    if text is not None:
        (digits / "testing_list.txt").write_text(text, encoding="utf-8")
    assert names(digits) == {
        "train": ["one/b_9.wav", "zero/b_1.wav"],
        "valid": ["one/b_10.wav", "zero/a_2.wav"],
        "test": ["one/a_1.wav"],
    }


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("validation_list.txt", None, r"validation_list\.txt is missing"),
        ("testing_list.txt", None, r"testing_list\.txt is missing"),
        ("testing_list.txt", b"zero/a_2.wav\n", r"zero/a_2\.wav is in both validation_list\.txt and testing_list\.txt"),
        ("testing_list.txt", b"one/nothing.wav\n", "leave no audio file .* for test, of 5 in all"),
        ("testing_list.txt", b"zero/b_1.wav\none/a_1.wav\none/b_9.wav", "leave no audio file .* for train, of 5 in"),
        ("testing_list.txt", b"\xff\xfe\x00one", r"testing_list\.txt is no UTF-8 text"),
    ],
)
def test_bad_lists_are_named(digits, name, content, message):
    (digits / name).unlink() if content is None else (digits / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        split_folder(digits, 0.88)


def test_words_for_people():
    assert [duration(s) for s in (7.26, 90, 5400)] == ["7.3 s", "1.5 minutes", "1.5 hours"]
    assert listed(list("abc"), 2) == "a, b and 1 more"
    assert listed(list("ab"), 2) == "a, b"
    assert doubt(10, 9, silent=False) is None
    assert re.match(r"validation is tiny: 9 clips, 1\.7 s; .*train_percentage", doubt(9, 1.7, silent=False) or "")
    assert "silent" in (doubt(500, 9, silent=True) or "")
