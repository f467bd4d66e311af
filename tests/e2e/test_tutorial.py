"""docs/tutorial.md as a reader goes through it: every command runs, in the folder that those before it have left."""

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from conftest import RATE, music

TEXT = (Path(__file__).parents[2] / "docs/tutorial.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(bash|python)\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)
# The first block makes an environment and installs the package: this one has it.
INSTALLS = ("python3 -m venv", "pip install")
# Long enough to be interrupted.
STEPS = 40


@pytest.fixture
def folder(tmp_path) -> Path:
    """Some music under the names that the tutorial has."""
    names = sorted({*re.findall(r"data/music/([\w-]+\.flac)", TEXT), "a.flac", "b.flac", "c.flac", "d.flac", "e.flac"})
    (tmp_path / "data" / "music").mkdir(parents=True)
    for seed, name in enumerate(names):
        soundfile.write(tmp_path / "data" / "music" / name, music(2 * RATE, 2, seed), RATE)
    return tmp_path


def as_here(line: str, folder: Path) -> str:
    """The line with its blanks filled in, a training that is shorter, and this Python."""
    runs = sorted((folder / "runs").glob("[0-9]*"), key=lambda run: run.stat().st_mtime)
    line = line.replace("<run>", runs[-1].name if runs else "none")
    line = re.sub(r"scheduler\.total_steps=\d+", f"scheduler.total_steps={STEPS} scheduler.warmup_steps=1", line)
    return re.sub(r"^stereo-sashimi", f"{shlex.quote(sys.executable)} -m stereo_sashimi", line)


def run(command: list[str], folder: Path, until: str | None, code: int) -> str:
    """What a command prints that ends with `code`; Ctrl-C at the line that begins with `until`."""
    printed, environment = [], os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for text in process.stdout:
            printed.append(text)
            if until and text.startswith(until):
                process.send_signal(signal.SIGINT)
    assert process.returncode == code, f"{command}\n{''.join(printed)}"
    return "".join(printed)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_command_runs(folder):
    ran = []
    for kind, block in BLOCKS:
        for line in [block] if kind == "python" else block.replace("\\\n", " ").splitlines():
            if line.startswith(INSTALLS):
                continue
            command = [sys.executable, "-c", line] if kind == "python" else shlex.split(as_here(line, folder))
            # The step about resuming needs a training that was interrupted.
            interrupted = "scheduler.total_steps" in line
            printed = run(command, folder, "step 1 " if interrupted else None, 130 if interrupted else 0)
            assert "Traceback" not in printed
            ran.append(line)
    assert len(ran) >= 9
    assert len(list((folder / "music-ssc").iterdir())) == len(list((folder / "data" / "music").iterdir()))
