"""preprocess/scores.py: MIDI files in a WAD, played by FluidSynth, of which a program on the PATH takes the place."""

import struct
from pathlib import Path

import numpy as np
import pytest

from stereo_sashimi.audio.io import read_pcm
from stereo_sashimi.data.corpora.scores import RATE, main, scores
from stereo_sashimi.data.split import DataError


def wad(*lumps: tuple[bytes, bytes]) -> bytes:
    table, body = b"", b""
    for name, content in lumps:
        table += struct.pack("<II8s", 12 + len(body), len(content), name)
        body += content
    return struct.pack("<4sII", b"IWAD", len(lumps), 12 + len(body)) + body + table


SCORES = [(f"D_{i}".encode(), b"MThd" + bytes([i])) for i in range(12)]


@pytest.fixture
def inputs(tmp_path, monkeypatch) -> list[str]:
    """Two WADs that share a score, a soundfont, and a FluidSynth that plays a score's last byte for ever."""
    (tmp_path / "one.wad").write_bytes(wad(*SCORES[:7], (b"PLAYPAL", b"colours")))
    (tmp_path / "two.wad").write_bytes(wad(*SCORES[6:]))
    (tmp_path / "font.sf2").write_bytes(b"")
    (tmp_path / "bin").mkdir()
    player = tmp_path / "bin/fluidsynth"
    player.write_text(
        '#!/bin/sh\nfor score; do :; done\nbyte=$(tail -c 1 "$score" | od -An -tu1)\n'
        '[ $byte -eq 11 ] && echo "no notes" >&2 && exit 0\nexec yes $byte\n'
    )
    player.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    monkeypatch.chdir(tmp_path)
    return ["--root", ".", "--soundfont", "font.sf2", "--seconds", "0.5"]


def test_scores_are_the_midi_lumps(tmp_path):
    (tmp_path / "a.wad").write_bytes(wad((b"MAP01", b""), SCORES[3], (b"D_TEXT\0\0", b"MUS")))
    assert list(scores(tmp_path / "a.wad")) == [("d_3", SCORES[3][1])]
    (tmp_path / "a.wad").write_bytes(b"no wad at all, but long enough")
    with pytest.raises(DataError, match=r"a\.wad is no WAD file"):
        list(scores(tmp_path / "a.wad"))


def test_each_score_is_played_once(inputs, tmp_path, capsys):
    (tmp_path / "two.wad").write_bytes(wad(*SCORES[6:11]))
    assert main(inputs) == 0
    assert capsys.readouterr().err == "data/scores: 10 train, 1 valid\n"
    files = sorted(path.relative_to("data/scores") for path in Path("data/scores").rglob("*.*"))
    assert [str(path) for path in files if path.parent.name == "valid"] == ["valid/two_d_8.flac"]
    assert Path("train/two_d_6.flac") in files
    assert Path("train/one_d_6.flac") not in files
    for path in files:
        pcm, _ = read_pcm(Path("data/scores") / path)
        assert pcm.shape == (RATE // 2, 2)
        assert len(np.unique(pcm)) <= 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "error: FluidSynth did not play .two_d_11.mid with font.sf2: no notes."),
        (["--soundfont", "absent.sf2"], "error: there is no soundfont absent.sf2"),
        (["--root", "bin"], "error: bin has no WAD file"),
        (["--root", "absent"], "error: absent has no WAD file"),
    ],
)
def test_what_cannot_be_played_is_said(inputs, capsys, options, message):
    assert main([*inputs, *options]) == 1
    assert message in capsys.readouterr().err
    assert not list(Path().rglob("*.mid"))


def test_without_fluidsynth_nothing_is_done(inputs, monkeypatch, capsys):
    monkeypatch.setenv("PATH", "/nowhere")
    assert main(inputs) == 1
    assert "there is no program fluidsynth: apt-get install fluidsynth" in capsys.readouterr().err
    assert not Path("data").exists()
