"""Which notes of a soundfont share recordings; `data/corpora/soundfont.py`."""

import pytest
from soundfonts import soundfont

from stereo_sashimi.data.corpora.soundfont import group_by_recording
from stereo_sashimi.data.split import DataError

ALL = (0, 127)


def groups(tmp_path, presets, notes):
    (tmp_path / "font.sf2").write_bytes(soundfont(presets))
    return group_by_recording(tmp_path / "font.sf2", notes)


def test_notes_of_two_kits_with_one_recording_are_a_group(tmp_path):
    presets = {
        (128, 0): [((35, 36), ALL, 0), ((38, 38), ALL, 1)],
        (128, 8): [((35, 35), ALL, 2), ((38, 38), ALL, 1)],
    }
    notes = [(program, key, 100) for key in (35, 36, 38) for program in (0, 8)]
    assert groups(tmp_path, presets, notes) == {
        (0, 35, 100): 0, (8, 35, 100): 1, (0, 36, 100): 0, (0, 38, 100): 2, (8, 38, 100): 2,
    }  # fmt: skip


def test_velocities_choose_and_layers_join(tmp_path):
    layers = [((40, 40), (0, 80), 0), ((40, 40), (81, 127), 1), ((41, 41), ALL, 1), ((41, 41), (100, 127), 2)]
    presets = {(128, 0): layers, (0, 0): [(ALL, ALL, 3)]}
    assert groups(tmp_path, presets, [(0, 40, 50), (0, 40, 90), (0, 41, 50)]) == {
        (0, 40, 50): 0, (0, 40, 90): 1, (0, 41, 50): 1,
    }  # fmt: skip
    # A note found later may join two groups that had nothing in common: the first one keeps its number.
    presets[128, 1] = [((50, 50), ALL, 0), ((50, 50), ALL, 2)]
    notes = [(0, 40, 50), (0, 40, 90), (0, 41, 100), (1, 50, 9)]
    assert set(groups(tmp_path, presets, notes).values()) == {0}
    assert groups(tmp_path, presets, [(0, 40, 90), (0, 40, 50), (1, 50, 9)])[1, 50, 9] == 1


def test_defaults_of_an_instrument(tmp_path):
    presets = {(128, 0): [((60, 62), (0, 50), None), (None, None, 0), (None, ALL, 1)]}
    notes = [(0, 59, 9), (0, 60, 9), (0, 60, 51), (0, 63, 9)]
    assert groups(tmp_path, presets, notes) == {(0, 60, 9): 0, (0, 60, 51): 0}


@pytest.mark.parametrize("content", [b"", b"RIFF\4\0\0\0WAVE", soundfont({(128, 0): [(ALL, ALL, 0)]})[:-120]])
def test_what_is_no_soundfont_is_said(tmp_path, content):
    (tmp_path / "font.sf2").write_bytes(content)
    with pytest.raises(DataError, match=r"font.sf2 is no soundfont"):
        group_by_recording(tmp_path / "font.sf2", [(0, 40, 100)])
