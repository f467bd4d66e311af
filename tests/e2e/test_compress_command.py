"""`compress.py` from its YAML to its files: all actions, what it prints, what it refuses, and interruptions."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from running import ended, finish, start

from stereo_sashimi.audio.io import read_pcm, write_pcm
from stereo_sashimi.codec.batch_coder import BatchCoder
from stereo_sashimi.codec.container import Reader
from stereo_sashimi.commands.compress import compress_command as compress
from stereo_sashimi.commands.shared.checks import make_folder
from stereo_sashimi.signals import Stopped
from stereo_sashimi.spec import AudioSpec


def recording(frames: int, channels: int = 2) -> np.ndarray:
    rng = np.random.default_rng(5)
    return np.cumsum(rng.normal(0, 40, (frames, channels)), 0).clip(-9000, 9000).astype(np.int16)


@pytest.fixture
def song(tmp_path) -> Path:
    write_pcm(tmp_path / "song.wav", recording(300), 44100)
    return tmp_path / "song.wav"


@pytest.fixture
def act(composed, dml_run):
    """`act("encode", input, *overrides)` with the tiny run; the file that was written."""

    def go(action: str, source: Path, *overrides: str) -> None:
        fixed = (f"action={action}", f"input={source}", f"checkpoint={dml_run}")
        compress.run(composed("compress", *fixed, *overrides))

    return go


@pytest.fixture
def coded(act, song, capsys) -> Path:
    """The song in segments of 100 frames."""
    act("encode", song, "segment_frames=100")
    capsys.readouterr()
    return song.with_suffix(".ssc")


def opened(path: Path) -> Reader:
    with open(path, "rb") as file:
        return Reader(file, str(path))


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def only_progress(err: str) -> bool:
    """Where loops had to be compiled, a line says after ten seconds how far the work is."""
    return all("encoding  " in line or "decoding  " in line for line in err.splitlines())


@pytest.mark.parametrize(
    ("suffix", "frames", "rate", "options"),
    [
        (".wav", 0, 44100, ()),
        (".wav", 1, 44100, ()),
        (".wav", 100, 8000, ()),
        (".flac", 120, 44100, ()),
        (".wav", 2000, 44100, ("checkpoint=null",)),
        (".wav", 2000, 48000, ("checkpoint=null", "profile=fast")),
    ],
    ids=["nothing", "one frame", "another rate", "flac", "the shipped model", "another profile"],
)
def test_a_file_is_coded_and_comes_back(act, tmp_path, capsys, suffix, frames, rate, options):
    """Without an output it lies beside the input."""
    source, coded = (tmp_path / "in").with_suffix(suffix), tmp_path / "in.ssc"
    write_pcm(source, recording(frames), rate)
    content = source.read_bytes()
    act("encode", source, "flac=true" if options else "flac=false", *options)
    source.unlink()
    act("info", coded)
    act("verify", coded, *options[:1])
    assert names(tmp_path) == ["in.ssc"], "only decode writes"
    act("decode", coded, *options[:1])
    assert names(tmp_path) == sorted([source.name, "in.ssc"])
    out, err = capsys.readouterr()
    size = coded.stat().st_size
    assert f"in.ssc  {size:,} bytes  {size / len(content):.1%} of {source.name}, verified" in out
    assert f"in.ssc is whole: {frames:,} frames decode to what was coded" in out
    assert f"{source.name}  {frames:,} frames  " in out
    assert f"all else of a {suffix[1:].upper()} file is kept" in out
    assert f"stereo  {rate} Hz  16 bit" in out
    assert only_progress(err)
    if suffix == ".wav":
        assert source.read_bytes() == content
    if frames:
        assert f"{8 * size / (2 * frames):.3f} bits/sample  " in out
        assert "1 segments (1 " in out
        act("decode", coded, f"output={tmp_path / 'back.flac'}", *options[:1])
        assert np.array_equal(read_pcm(tmp_path / "back.flac")[0], recording(frames))
    if options:
        assert "1 segments (1 model)" in out
        assert "% of FLAC  " in out
        assert size < len(content)
    assert np.array_equal(read_pcm(source)[0], recording(frames))


def test_info_says_what_is_inside(act, coded, capsys):
    # No model is needed for it.
    act("info", coded, "checkpoint=absent")
    out = capsys.readouterr().out
    header = opened(coded).header
    lines = out.splitlines()
    assert lines[0] == f"{coded}  {coded.stat().st_size:,} bytes, coded by stereo-sashimi {header.package}"
    assert lines[1] == "audio     stereo  44100 Hz  16 bit  300 frames"
    assert lines[2] == "          0.01 s  all else of a WAV file is kept"
    assert lines[3] == f"decoded   1,200 bytes of samples, {1200 / coded.stat().st_size:,.2f} times this file"
    assert lines[4].startswith("segments  100 frames each  3 segments (")
    assert lines[5] == "model     one of your own"
    assert lines[6:] == [f"{name:<10}{getattr(header, name)}" for name in ("weights", "probe", "pcm")]


NEW = "output={folder}/a.ssc"


@pytest.mark.parametrize(
    ("action", "source", "options", "message"),
    [
        ("encode", "song.wav", (), "song.ssc is there already. Give another output=<file>, or overwrite=true."),
        ("decode", "song.ssc", (), "song.wav is there already"),
        ("encode", "song.wav", ("output={folder}/absent/a.ssc",), "there is no folder {folder}/absent. Make it"),
        ("encode", "song.wav", ("output={folder}/a.wav",), "output must end in .ssc for action=encode, or be a folder"),
        (
            "decode",
            "song.ssc",
            ("output={folder}/a.ogg",),
            "output must end in .wav, .wave, .aiff, .aif, .aifc, .flac for",
        ),
        ("encode", "named.ssc", ("overwrite=true",), "output and input are the same file"),
        ("decode", "coded.wav", ("overwrite=true",), "output and input are the same file"),
        ("squash", "song.wav", (), "action must be one of encode, decode, verify, info, or null; got 'squash'"),
        ("encode", "absent.wav", (), "There is no file {folder}/absent.wav. Give one: input=<file>"),
        ("decode", "empty", (), "{folder}/empty holds no .ssc file"),
        ("encode", "empty", (), "{folder}/empty holds none of .wav"),
        ("decode", "song.wav", (), "song.wav is no .ssc file"),
        ("verify", "cut.ssc", (), "cut.ssc has another length than its table says"),
        ("encode", "song.ssc", (NEW,), "not an audio file"),
        ("encode", "mono.wav", (), "the recording has mono (1 channel) of 16 bits to be coded, and the model codes"),
        ("encode", "song.wav", (NEW, "profile=loud"), "profile must be one of fast, default, best; got 'loud'"),
        ("encode", "song.wav", (NEW, "lanes=0"), "lanes must be an integer from 1 to 256; got 0"),
        ("encode", "song.wav", (NEW, "verify=maybe"), "verify must be true or false"),
        ("encode", "song.wav", (NEW, "+speed=9"), "Unknown key speed"),
        ("encode", "song.wav", (NEW, "checkpoint=absent"), "There is no checkpoint absent"),
        ("decode", "song.ssc", ("overwrite=true", "checkpoint=null"), "coded with a model of somebody's own"),
        ("decode", "song.ssc", ("overwrite=true", "checkpoint=fast-1"), "song.ssc was coded with another model"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_errors_name_what_to_do(refusal, dml_run, coded, song, tmp_path, action, source, options, message):
    write_pcm(tmp_path / "mono.wav", recording(50, channels=1), 44100)
    (tmp_path / "cut.ssc").write_bytes(coded.read_bytes()[:-1])
    (tmp_path / "named.ssc").write_bytes(song.read_bytes())
    (tmp_path / "coded.wav").write_bytes(coded.read_bytes())
    (tmp_path / "empty").mkdir()
    before = names(tmp_path)
    fixed = (f"action={action}", f"input={tmp_path / source}", f"checkpoint={dml_run}")
    said = refusal("compress", *fixed, *(option.format(folder=tmp_path) for option in options))
    assert message.format(folder=tmp_path) in said
    assert names(tmp_path) == before


def test_a_read_only_folder_and_no_input_are_refused_before_the_work(refusal, song, monkeypatch):
    assert "input" in refusal("compress")
    # A superuser may write anywhere.
    access = os.access
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != song.parent and access(path, mode))
    said = refusal("compress", f"input={song}", "checkpoint=absent")
    assert f"Nothing can be written into {song.parent}: it is read-only. Give another folder with output=.." in said
    # By this door generate and evaluate go.
    with pytest.raises(ValueError, match=r"it is read-only. Give another folder with out=\.\."):
        make_folder(song.parent, "out")


def test_codes_of_which_pcm_does_not_come_back_are_refused(refusal, song, monkeypatch):
    model = SimpleNamespace(spec=AudioSpec(44100, 2, 8, "mu-law"))
    monkeypatch.setattr(compress, "load_model", lambda *given: (song, model))
    assert "mu-law codes" in refusal("compress", f"input={song}")


@contextmanager
def handling(number: int, handler: Any) -> Iterator[None]:
    """The suite itself may have been started in the background, or by nohup."""
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("action", ["encode", "decode", "verify"])
def test_an_interruption_leaves_nothing_behind(act, coded, song, tmp_path, monkeypatch, capsys, action, number):
    before, work = names(tmp_path), getattr(BatchCoder, "encode" if action == "encode" else "decode")
    source, new = (song, "new.ssc") if action == "encode" else (coded, "new.wav")

    def interrupted(self, *args):
        done = work(self, *args)
        os.kill(os.getpid(), number)
        return done

    monkeypatch.setattr(BatchCoder, work.__name__, interrupted)
    with handling(number, signal.default_int_handler), pytest.raises(SystemExit) as stopped:
        act(action, source, f"output={tmp_path / new}")
    assert stopped.value.code == 128 + number
    assert capsys.readouterr() == ("", "\nInterrupted; nothing was written.\n")
    assert names(tmp_path) == before
    # So nohup starts it.
    with handling(number, signal.SIG_IGN):
        act(action, source, f"output={tmp_path / new}")


def test_an_interruption_while_it_is_written_leaves_nothing(act, song, tmp_path, monkeypatch):
    def interrupted(*args):
        raise Stopped(signal.SIGINT)

    monkeypatch.setattr("os.replace", interrupted)
    with pytest.raises(SystemExit) as stopped:
        act("encode", song, "segment_frames=100")
    assert stopped.value.code == 130
    assert names(tmp_path) == ["song.wav"]


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
def test_ctrl_c_ends_a_command_at_once(dml_run, tmp_path, threads):
    """Also while threads are decoding, which python waits for at its end."""
    write_pcm(tmp_path / "long.wav", recording(80_000), 44100)
    program = tmp_path / "program.py"
    program.write_text(
        "from stereo_sashimi.codec.batch_coder import BatchCoder\nwork = BatchCoder.decode\n"
        "def decode(self, *args):\n    print('decoding', flush=True)\n    while True:\n        work(self, *args)\n"
        "BatchCoder.decode = decode\nfrom stereo_sashimi.commands.cli import main\nmain('compress')\n"
    )
    options = (f"input={tmp_path / 'long.wav'}", f"checkpoint={dml_run}")
    process = start(*options, script=str(program), cwd=tmp_path, OMP_NUM_THREADS=str(threads))
    assert process.stdout is not None
    assert process.stdout.readline() == "decoding\n", ended(process)
    time.sleep(0.5)
    begun = time.perf_counter()
    process.send_signal(signal.SIGINT)
    out, err = ended(process)
    assert process.returncode == 130, err
    assert time.perf_counter() - begun < 5
    assert err.endswith("\nInterrupted; nothing was written.\n")
    assert only_progress(err.removesuffix("Interrupted; nothing was written.\n").strip())
    assert out == ""
    assert not [*tmp_path.rglob("*.ssc"), *tmp_path.rglob("*.part")]


def test_on_another_thread_it_works_too(act, song, coded, capsys):
    """Where python allows no handlers of signals."""
    thread = threading.Thread(target=act, args=("verify", coded))
    thread.start()
    thread.join()
    assert "is whole" in capsys.readouterr().out


@pytest.mark.slow
def test_on_the_command_line(act, dml_run, song, tmp_path):
    def command(*options: str, code: int = 0) -> tuple[str, str]:
        fixed = (f"checkpoint={dml_run}", f"hydra.run.dir={tmp_path / 'hydra'}")
        strict = {"OMP_NUM_THREADS": "2", "PYTHONIOENCODING": "utf-8:strict"}
        return finish(*fixed, *options, code=code, script="compress.py", cwd=tmp_path, **strict)

    # A name that is not UTF-8.
    odd = Path(os.fsdecode(b"caf\xe9.ssc"))
    out, _ = command("input=song.wav", f'output="{odd}"', "segment_frames=100")
    assert out.startswith("caf\\xe9.ssc  ")
    coded = (tmp_path / odd).rename(tmp_path / "plain.ssc")
    act("decode", coded, f"output={tmp_path / 'back.wav'}")
    assert (tmp_path / "back.wav").read_bytes() == song.read_bytes()
    out, err = command("action=decode", "input=song.wav", "output=other.wav", code=1)
    assert (out, err[:37]) == ("", "CodecError: song.wav is no .ssc file:")
