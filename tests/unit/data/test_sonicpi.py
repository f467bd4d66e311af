"""preprocess/sonicpi.py: copies by split, what is left out, a wrong folder."""

import numpy as np
import pytest
import soundfile

from stereo_sashimi.data.corpora.sonicpi import HELD_OUT, main, prepare
from stereo_sashimi.data.split import DataError


@pytest.fixture
def sounds(tmp_path):
    folder = tmp_path / "samples"
    folder.mkdir()
    for i, name in enumerate([*(n for names in HELD_OUT.values() for n in names), "loop_amen", "bd_808"]):
        channels = 1 if name == "bd_808" else 2
        pcm = np.full((100, channels), i, np.int16)
        soundfile.write(folder / f"{name}.flac", pcm, 44100, subtype="PCM_16")
    return folder


def test_files_are_copied_by_split(sounds, tmp_path):
    counts = prepare(sounds, tmp_path / "out")
    assert counts == {"train": 1, "valid": len(HELD_OUT["valid"]), "test": len(HELD_OUT["test"])}
    assert [path.name for path in (tmp_path / "out" / "train").iterdir()] == ["loop_amen.flac"]
    for name in HELD_OUT["test"]:
        copy = tmp_path / "out" / "test" / f"{name}.flac"
        assert copy.read_bytes() == (sounds / copy.name).read_bytes()


def test_another_folder_is_refused(sounds, tmp_path, capsys):
    (sounds / "loop_garzul.flac").unlink()
    with pytest.raises(DataError, match=r"has no loop_garzul\.flac"):
        prepare(sounds, tmp_path / "out")
    assert main(["--root", str(sounds), "--out", str(tmp_path / "out")]) == 1
    assert "apt-get download" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
