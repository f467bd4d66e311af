"""`python generate.py stream=true` as a person runs it: Ctrl-C, SIGTERM, a player behind a pipe, real processes."""

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest
import soundfile
from running import start

pytestmark = pytest.mark.slow


def begin(run: Path, folder: Path, *options: str, out: bool = True) -> subprocess.Popen[bytes]:
    place = (f"out={folder / 'out'}",) if out else ()
    fixed = (f"checkpoint={run}", "stream=true", "seconds=null", "device=cpu", *place)
    return start(*fixed, *options, script="generate.py", cwd=folder, text=False, CUDA_VISIBLE_DEVICES="")


def wait_for(process: subprocess.Popen[bytes], path: Path, size: int) -> None:
    """Until the file has that many bytes."""
    for _ in range(1200):
        if path.exists() and path.stat().st_size >= size:
            return
        if process.poll() is not None:
            pytest.fail(f"it ended: {process.communicate()}")
        time.sleep(0.1)
    pytest.fail(f"{path} does not grow")


def end(process: subprocess.Popen[bytes], number: int | None = None) -> tuple[int, bytes, str]:
    """Send a signal; code, standard output, standard error."""
    try:
        if number is not None:
            process.send_signal(number)
        out, err = process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            process.kill()
    assert b"Traceback" not in err + out, err
    return process.returncode, out, err.decode()


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.long), signal.SIGTERM])
def test_a_signal_leaves_a_whole_file(dml_run, tmp_path, number):
    process = begin(dml_run, tmp_path, "n_samples=2")
    part = tmp_path / "out" / "sample-seed1.part.wav"
    wait_for(process, part, 20_000)
    with soundfile.SoundFile(part) as growing:
        assert len(growing.read(1000)) == 1000
    code, out, _ = end(process, number)
    assert code == 128 + number
    for seed in (0, 1):
        path = tmp_path / "out" / f"sample-seed{seed}.wav"
        settings = json.loads(path.with_suffix(".json").read_text())
        pcm, rate = soundfile.read(path, dtype="int16")
        assert (rate, pcm.shape) == (44100, (settings["frames"], 2))
        assert len(pcm) * 4 >= 10_000
        assert settings["stopped"] == number.name
        assert f"{path.relative_to(tmp_path)}  {len(pcm) / 44100:.2f} s" in out.decode()
    assert len(list((tmp_path / "out").iterdir())) == 4


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)])
def test_before_the_first_frame_nothing_is_left(dml_run, tmp_path, number):
    # A prompt of two minutes keeps the model busy for a while.
    soundfile.write(tmp_path / "long.wav", [[0.1, 0.2]] * (120 * 44100), 44100)
    process = begin(dml_run, tmp_path, f"prompt={tmp_path / 'long.wav'}")
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(b"backend"):
            break
    ended, _, err = end(process, number)
    assert ended == 128 + number, err
    assert err.strip().splitlines()[-1] == "Interrupted."
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_standard_output_holds_the_samples_alone(dml_run, tmp_path):
    process = begin(dml_run, tmp_path, "stdout=true", "seconds=0.02")
    code, out, err = end(process)
    assert code == 0, err
    path = tmp_path / "out" / "sample-seed0.wav"
    assert out == soundfile.read(path, dtype="int16")[0].astype("<i2").tobytes()
    assert len(out) == 882 * 4
    assert "44100 Hz" in err
    assert "sample-seed0.wav  0.02 s" in err


def test_a_player_that_is_closed_ends_it(dml_run, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in dml_run.rglob("*")}
    process = begin(dml_run, tmp_path, "stdout=true", out=False)
    assert process.stdout is not None
    assert len(process.stdout.read(4000)) == 4000
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read().decode()
    assert process.wait(timeout=60) == 141
    # As a filter does: not a word about it.
    assert err.strip().splitlines()[-1].startswith("backend")
    assert {path: path.stat().st_mtime_ns for path in dml_run.rglob("*")} == before
    process.stderr.close()
