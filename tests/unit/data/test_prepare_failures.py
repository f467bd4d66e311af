"""What prepare does when something is wrong: sources, options, a full disk, an interruption; nothing is lost."""

import errno
import shutil

import pytest
from musdb_folders import error_line, noise, run, tree

from stereo_sashimi.audio.io import write_pcm
from stereo_sashimi.data.corpora import musdb as prepare
from stereo_sashimi.data.corpora.prepare_command import main

pytestmark = pytest.mark.usefixtures("no_musdb_path")


def test_interrupted_run_leaves_complete_files_and_goes_on(hq, tmp_path, capsys, monkeypatch):
    out, whole = tmp_path / "out", tmp_path / "whole"
    args = ("--root", hq, "--targets", "mixture,other", "--clip-seconds", 0.05)
    assert run(*args, "--out", whole) == 0
    written = []

    def interrupt_the_ninth(path, pcm, rate):
        if len(written) == 8:
            raise KeyboardInterrupt
        write_pcm(path, pcm, rate)
        written.append(path)

    monkeypatch.setattr(prepare, "write_pcm", interrupt_the_ninth)
    capsys.readouterr()
    assert run(*args, "--out", out) == 130
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not (out / "manifest.json").exists()
    sounds = {k: v for k, v in tree(out).items() if k.endswith(".wav")}
    assert len(sounds) == 8
    assert sounds.items() <= tree(whole).items()

    monkeypatch.setattr(prepare, "write_pcm", write_pcm)
    (out / "train" / ".0123456789abcdef.part").write_bytes(b"left by a killed process")
    assert run(*args, "--out", out) == 0
    # Two units of three clips were complete.
    assert "18 files written, 6 kept" in capsys.readouterr().err
    assert tree(out) == tree(whole)


def test_a_failing_track_does_not_lose_the_others(hq, tmp_path, capsys):
    out, bad = tmp_path / "out", hq / "train/B - Ünder 水/mixture.wav"
    good = bad.read_bytes()
    bad.write_bytes(good[:2000])
    args = ("--root", hq, "--out", out, "--targets", "mixture")
    assert run(*args) == 1
    error_line(capsys, bad, "ends early", "3 files are done")
    assert not (out / "manifest.json").exists()
    bad.write_bytes(good)
    assert run(*args) == 0
    assert "1 files written, 3 kept" in capsys.readouterr().err


@pytest.mark.parametrize("wrapped", [False, True])
def test_full_disk_stops_the_run(hq, tmp_path, capsys, monkeypatch, wrapped):
    calls = []

    def full(path, pcm, rate):
        calls.append(path)
        error = OSError(errno.ENOSPC, "No space left on device")
        if wrapped:
            raise prepare.AudioError(f"{path}: cannot write the file ({error.strerror}).") from error
        raise error

    monkeypatch.setattr(prepare, "write_pcm", full)
    assert run("--root", hq, "--out", tmp_path / "out") == 1
    error_line(capsys, tmp_path / "out/train/A Band - One_mixture.wav", "No space left on device")
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--targets", "mixture,kazoo"], "unknown target 'kazoo'"),
        (["--clip-seconds", "0"], "--clip-seconds must be"),
        (["--clip-seconds", "60"], "no track is as long as --clip-seconds"),
        (["--root", "absent"], "train/"),
        (["--pad"], "needs --clip-seconds"),
        (["--jobs", "0"], "--jobs must be 1 or more"),
        (["--out", "musdb18hq"], "--out must be another folder"),
        (["--out", "musdb18hq/train/A Band - One/mixture.wav"], "cannot write there"),
    ],
)
def test_wrong_options(hq, capsys, options, message):
    assert main(["--root", str(hq), "--jobs", "1", *options]) == 1
    error_line(capsys, message)


def test_nothing_to_read_from_is_explained(capsys):
    assert main([]) == 2
    text = capsys.readouterr().err
    for word in ("MUSDB_PATH", "22.7 GB", "3338373", "non-commercial", "--sample"):
        assert word in text
    assert main(["--sample", "--root", "x"]) == 2


def test_other_settings_need_another_folder(hq, tmp_path, capsys):
    out = tmp_path / "out"
    assert run("--root", hq, "--out", out, "--targets", "mixture") == 0
    before = tree(out)
    capsys.readouterr()
    assert run("--root", hq, "--out", out, "--targets", "mixture", "--clip-seconds", "0.1") == 1
    error_line(capsys, out, "clip_frames=None", "--out")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "manifest.json").write_text("[1]")
    assert run("--root", hq, "--out", tmp_path / "foreign") == 1
    error_line(capsys, "not written by this command")
    assert tree(out) == before


def test_notes_for_empty_splits_and_strangers(hq, tmp_path, capsys):
    shutil.rmtree(hq / "train" / "Young Griffo - Pennies")
    (tmp_path / "out" / "train").mkdir(parents=True)
    write_pcm(tmp_path / "out" / "train" / "mine.wav", noise(0), 44100)
    assert run("--root", hq, "--out", tmp_path / "out", "--targets", "bass") == 0
    text = capsys.readouterr().err
    assert "valid: empty" in text
    assert "mine.wav: not of this run" in text
