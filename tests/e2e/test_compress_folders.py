"""`compress.py` on folders, lists and pipes: trees are kept, what is done is skipped, one bad file harms no other."""

import io
import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from running import ROOT

from stereo_sashimi.audio.io import write_pcm
from stereo_sashimi.codec.batch_coder import BatchCoder
from stereo_sashimi.commands.cli import launch, main
from stereo_sashimi.commands.compress import compress_command as compress
from stereo_sashimi.signals import Stopped


def recording(frames: int, channels: int = 2) -> np.ndarray:
    rng = np.random.default_rng(5)
    return np.cumsum(rng.normal(0, 40, (frames, channels)), 0).clip(-9000, 9000).astype(np.int16)


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture
def album(tmp_path) -> Path:
    """Songs of several kinds in two folders, and what is no song."""
    (tmp_path / "album/b").mkdir(parents=True)
    write_pcm(tmp_path / "album/one.wav", recording(200), 44100)
    write_pcm(tmp_path / "album/b/two.flac", recording(150), 48000)
    write_pcm(tmp_path / "album/b/three.WAV", recording(100, channels=1), 8000)
    (tmp_path / "album/notes.txt").write_text("no song")
    return tmp_path / "album"


def test_a_folder_keeps_its_tree_and_goes_on(composed, album, tmp_path, capsys):
    def run(*words: str) -> None:
        compress.run(composed("compress", "profile=fast", *words))

    out = tmp_path / "coded"
    run(f"input={album}", f"output={out}")
    assert names(out) == ["b", "b/three.ssc", "b/two.ssc", "one.ssc"]
    assert names(album) == ["b", "b/three.WAV", "b/two.flac", "notes.txt", "one.wav"]
    said = capsys.readouterr().out
    assert "[1/3] " in said
    assert "3 files  " in said
    (out / "one.ssc").unlink()
    before = (out / "b/two.ssc").stat().st_mtime_ns
    run(f"input={album}", f"output={out}")
    assert "1 files, 2 done before  " in capsys.readouterr().out
    assert (out / "b/two.ssc").stat().st_mtime_ns == before
    run(f"input={album / 'b/two.flac'}", f"output={tmp_path / 'one.ssc'}")
    (tmp_path / "alone").mkdir()
    (tmp_path / "one.ssc").rename(tmp_path / "alone/one.ssc")
    for _ in range(2):
        run(f"input={tmp_path / 'alone'}", f"output={tmp_path / 'alone-back'}")
    assert capsys.readouterr().out.endswith("0 files, 1 done before\n")
    run("action=verify", f"input={out}")
    assert capsys.readouterr().out.count("is whole") == 3
    run(f"input={out}", f"output={tmp_path / 'back'}")
    assert names(tmp_path / "back") == ["b", "b/three.wav", "b/two.flac", "one.wav"]
    assert (tmp_path / "back/one.wav").read_bytes() == (album / "one.wav").read_bytes()
    assert (tmp_path / "back/b/three.wav").read_bytes() == (album / "b/three.WAV").read_bytes()
    # Without an output each lies beside its song; a list of files goes into one folder.
    run(f"input={album}")
    assert "b/two.ssc" in names(album)
    run(f"input=[{album / 'one.wav'},{album / 'b/two.flac'}]", f"output={tmp_path / 'flat'}")
    assert names(tmp_path / "flat") == ["one.ssc", "two.ssc"]


def test_a_bad_file_does_not_keep_the_others(composed, album, tmp_path, capsys):
    (album / "bad.wav").write_text("no audio")
    with pytest.raises(SystemExit) as ended_with:
        compress.run(composed("compress", "profile=fast", f"input={album}", f"output={tmp_path / 'coded'}"))
    assert ended_with.value.code == 1
    out, err = capsys.readouterr()
    assert "3 files, 1 failed" in out
    assert "bad.wav: not an audio file" in err
    assert names(tmp_path / "coded") == ["b", "b/three.ssc", "b/two.ssc", "one.ssc"]
    # One file in the middle that is damaged.
    damaged = tmp_path / "coded/b/two.ssc"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with pytest.raises(SystemExit):
        compress.run(composed("compress", "action=verify", f"input={tmp_path / 'coded'}"))
    out, err = capsys.readouterr()
    assert out.count("is whole") == 2
    assert "two.ssc has another length than its table says" in err


def test_two_songs_of_one_name_are_refused(composed, album):
    write_pcm(album / "one.flac", recording(20), 44100)
    with pytest.raises(ValueError, match=r"one\.flac, .*one\.wav would all become .*one\.ssc"):
        compress.run(composed("compress", f"input={album}"))
    assert "one.ssc" not in names(album)


def test_plain_words_are_inputs(album, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    launch("compress", ["album/one.wav", "profile=fast"])
    assert (album / "one.ssc").is_file()
    launch("compress", ["album/one.ssc", "output=again.wav"])
    assert (tmp_path / "again.wav").read_bytes() == (album / "one.wav").read_bytes()
    with pytest.raises(ValueError, match=r"'a\.wav' and input=\.\. are both given"):
        launch("compress", ["a.wav", "input=b.wav"])


def test_an_interruption_between_files_keeps_what_is_done(composed, album, tmp_path, monkeypatch, capsys):
    work, calls = BatchCoder.encode, []

    def interrupted(self, segments, *progress):
        # Each file is coded once. The model also codes the recording of the probe, which nobody watches.
        calls.extend(progress)
        if len(calls) == 2:
            raise Stopped(signal.SIGTERM)
        return work(self, segments, *progress)

    monkeypatch.setattr(BatchCoder, "encode", interrupted)
    with pytest.raises(SystemExit) as stopped:
        compress.run(composed("compress", "profile=fast", f"input={album}", f"output={tmp_path / 'coded'}"))
    assert stopped.value.code == 143
    assert "Interrupted; 1 of 3 files are complete." in capsys.readouterr().err
    assert [name for name in names(tmp_path / "coded") if name.endswith((".ssc", ".part"))] == ["b/three.ssc"]


@pytest.mark.slow
def test_pipes(tmp_path):
    """One file in, one out, and nothing else on standard output: as processes, here and back."""
    write_pcm(tmp_path / "song.wav", recording(3000), 44100)
    song = (tmp_path / "song.wav").read_bytes()

    def piped(data: bytes, *words: str) -> bytes:
        command = [sys.executable, str(ROOT / "compress.py"), "-", *words, "profile=fast"]
        known = os.environ | {"PYTHONPATH": str(ROOT / "src")}
        done = subprocess.run(command, input=data, cwd=tmp_path, capture_output=True, env=known, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    coded = piped(song)
    assert len(coded) < len(song)
    assert piped(coded, "action=decode") == song
    assert names(tmp_path) == ["song.wav"]


def test_standard_input_and_output(tmp_path, monkeypatch, capfdbinary):
    monkeypatch.chdir(tmp_path)
    write_pcm(tmp_path / "song.wav", recording(200), 44100)
    song = (tmp_path / "song.wav").read_bytes()

    def piped(data: bytes, *words: str, code: int = 0) -> tuple[bytes, bytes]:
        with monkeypatch.context() as patch, pytest.raises(SystemExit) if code else nullcontext() as stopped:
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
            main("compress", [*words, "profile=fast"])
        assert stopped is None or stopped.value.code == code
        return capfdbinary.readouterr()

    piped(song, "-", "output=here.ssc")
    coded = (tmp_path / "here.ssc").read_bytes()
    assert b"is whole" in piped(coded, "-", "action=verify")[0]
    assert piped(b"", "here.ssc", "output=-")[0] == song
    out, err = piped(coded[:-1], "-", "action=decode", code=1)
    assert out == b""
    assert b"has another length than its table says" in err
    assert b"take one file" in piped(song, "-", "here.ssc", code=1)[1]
    assert names(tmp_path) == ["here.ssc", "song.wav"]
