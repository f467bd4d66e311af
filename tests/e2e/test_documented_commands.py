"""The commands that README.md and docs/ show, page by page, in a folder with what a reader would have by then.

Trainings, draws and measurements are as small as can be. What is not run here is in NOT_HERE, with the reason.
"""

import os
import re
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from benchmarks import __main__ as bench
from running import SMALL, Terminate, keep_seeds

from conftest import RATE, music, watch, write_folder
from stereo_sashimi.audio.io import write_pcm
from stereo_sashimi.commands.cli import main

ROOT = Path(__file__).parents[2]
PAGES = [Path("README.md"), *(path.relative_to(ROOT) for path in sorted((ROOT / "docs").glob("*.md")))]
TUTORIAL = "docs/tutorial.md"


def blocks(page: str, kinds: str = "bash") -> list[tuple[str, str]]:
    """The language and the text of each block of these languages."""
    return re.findall(rf"^```({kinds})\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


BASH = {page: "".join(text for _, text in blocks(page)) for page in map(str, PAGES)}
# Each measures in processes of its own; test_benchmarks.py has small ones.
LONG = ("docs/guide.md", "docs/performance.md")
NOT_HERE = {
    r"^make (demo|test)": "CI calls them",
    r"^(python3 -m venv|pip install)": "CI installs the package into an environment of its own",
    r"^(docker|sbatch|ssh) ": "wants that program, or another machine",
    r"^stereo-sashimi page": "goes on until Ctrl-C: test_page_process.py",
    r"^stereo-sashimi (push|pull)|hub:": "wants a token and a host: the tests of push and pull have one in their place",
    r"^stereo-sashimi shards|dataset=shards": "wants litdata: test_shards.py",
    r"sweep=optuna": "wants the extra `sweep`: test_sweep.py",
}
# What a reader fills in.
BLANKS = {
    "<run>": "mine", "<coupled>": "mine", "<independent>": "independent", "<mono run>": "mono", "<folder>": "music",
    "<loops>": "loops", "/path/to/musdb18hq": "MUSDB18-HQ", "--root ...": "--root MUSDB18-HQ", "/my/music": "music",
    "experiment=...": "experiment=audio/sashimi-sample", "data=..": "data=music", "seconds=null": "seconds=0.01",
}  # fmt: skip
MODEL, CLIPS = SMALL[1:5], SMALL[5:8]


@pytest.fixture(scope="module")
def reader(launch, tmp_path_factory) -> Path:
    """Music, MUSDB's folders, data that is prepared, runs that are finished: all short."""
    root = tmp_path_factory.mktemp("reader")
    (root / "album").mkdir()
    for name, seconds in {"song.wav": 2.1, "a.wav": 0.1, "b.flac": 0.1, "album/1.wav": 0.1, "album/2.wav": 0.1}.items():
        write_pcm(root / name, music(int(seconds * RATE), 2, len(name)), RATE)
    for split, frames in {"train": 10 * RATE, "valid": 4096, "test": 4096}.items():
        (root / f"MUSDB18-HQ/{split}/track").mkdir(parents=True)
        for target in ("mixture", "vocals", "drums", "bass", "other"):
            # As long as the clips that docs/data.md cuts.
            write_pcm(root / f"MUSDB18-HQ/{split}/track/{target}.wav", music(frames, 2, len(target)), RATE)
    for folder in ("music", "data/music", "data/loops", "data/sample", "data/musdb18stereo"):
        write_folder(root / folder, 2, 4096)
    write_folder(root / "data/musdb18mono", 1, 4096)
    launch(root / "runs/mono", root / "data/musdb18mono", "dataset.is_stereo=false", "decoder=categorical")
    launch(root / "runs/independent", root / "data/sample", "decoder.coupling=independent")
    launch(root / "runs/mine", root / "data/sample")
    (root / "runs/mine/samples").mkdir()
    write_pcm(root / "runs/mine/samples/seed9.wav", music(RATE // 4, 2, 9), RATE)
    for kind, name, here in (("dataset", "musdb18stereo", "y"), ("experiment/audio", "sashimi-musdb18stereo", "x")):
        (root / "old/configs" / kind).mkdir(parents=True)
        shutil.copy(ROOT / f"tests/e2e/seed/{name}.yaml", root / f"old/configs/{kind}/{here}.yaml")
    return root


def shorter(command: str, words: Sequence[str]) -> tuple[str, ...]:
    """What is added to a command, to be done soon."""
    network = () if any("experts-folder" in word for word in words) else MODEL
    if command == "train":
        return ("trainer=cpu", *network, *CLIPS, "trainer.max_steps=2", "train.val_chunk_size=1")
    if command == "benchmarks":
        if "codec" in words:
            smaller: tuple[str, ...] = ("bench.frames=4096",)
        elif any(word.startswith("bench.checkpoint=") for word in words):
            smaller = ("bench.prefill=64",)
        else:
            smaller = ("trainer=cpu", *MODEL, "dataset.sample_len=64", "loader.batch_size=1")
        return ("bench.repeats=1", "bench.seconds=0.001", *smaller)
    return {"generate": ("seconds=0.01",), "memory": MODEL}.get(command, ())


def run(line: str, patch: pytest.MonkeyPatch) -> int:
    """The exit code of a line: in this process, but for what needs a shell."""
    for shown, here in BLANKS.items():
        line = line.replace(shown, here)
    line = line.partition(" #")[0].strip()
    _, script, *words = shlex.split(line)
    if set("|<") & set(line):
        line = re.sub(r"^stereo-sashimi", "python -m stereo_sashimi", re.sub(r"\| aplay .*", "| wc -c", line))
        line = re.sub(r"^python", shlex.quote(sys.executable), line).replace(" generate.py", f" {ROOT}/generate.py")
        return subprocess.run(["bash", "-o", "pipefail", "-c", line], timeout=200).returncode
    try:
        if script == "-m":
            bench.main([*words[1:], *shorter("benchmarks", words)])
        elif script.startswith("preprocess/"):
            patch.setattr(sys, "argv", [script, *words])
            runpy.run_path(str(ROOT / script), run_name="__main__")
        else:
            command = script.removesuffix(".py")
            main(command, [*words, *shorter(command, words)])
    except SystemExit as stopped:
        return int(stopped.code or 0)
    return 0


@pytest.mark.slow
@pytest.mark.usefixtures("cheap_pictures")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.long, pytest.mark.timeout(900)] if page in LONG else [])
        for page, lines in BASH.items()
        if lines and page != TUTORIAL
    ],
)
def test_the_commands_of_a_page_run(page, reader, tmp_path, monkeypatch, capfd):
    shutil.copytree(reader, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    keep_seeds(monkeypatch)
    for line in BASH[page].replace("\\\n", " ").splitlines():
        if line and not any(re.search(pattern, line) for pattern in NOT_HERE):
            code = run(line, monkeypatch)
            printed = "".join(capfd.readouterr())
            assert code == 0, f"{line}\n{printed}"
            assert "Traceback" not in printed, f"{line}\n{printed}"


@pytest.mark.slow
@pytest.mark.usefixtures("cheap_pictures", "ctrl_c_stays")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_tutorial_runs(tmp_path, monkeypatch, capfd):
    """Each step in the folder that those before it have left; the training is interrupted, and resumed."""
    monkeypatch.chdir(tmp_path)
    keep_seeds(monkeypatch)
    watch(monkeypatch, Terminate("on_train_batch_start", 1, number=signal.SIGINT))
    Path("data/music").mkdir(parents=True)
    names = {
        *re.findall(r"data/music/([\w-]+\.flac)", BASH[TUTORIAL]),
        "a.flac",
        "b.flac",
        "c.flac",
        "d.flac",
        "e.flac",
    }
    for name in sorted(names):
        write_pcm(Path("data/music", name), music(int((1.1 if "loop" in name else 0.1) * RATE), 2, len(name)), RATE)
    for kind, text in blocks(TUTORIAL, "bash|python"):
        for line in [text] if kind == "python" else text.splitlines():
            if any(re.search(pattern, line) for pattern in NOT_HERE):
                continue
            if kind == "python":
                exec(line, {})
                continue
            newest = max(Path("runs").glob("[0-9]*"), key=os.path.getmtime, default=Path("none")).name
            code = run(line.replace("<run>", newest), monkeypatch)
            printed = "".join(capfd.readouterr())
            assert code == (128 + signal.SIGINT if "scheduler.total_steps" in line else 0), f"{line}\n{printed}"
            assert "Traceback" not in printed, f"{line}\n{printed}"
    assert len(list(Path("music-again").iterdir())) == len(names)


@pytest.mark.parametrize("pattern", NOT_HERE)
def test_what_is_not_run_is_still_shown(pattern):
    assert any(re.search(pattern, line) for lines in BASH.values() for line in lines.splitlines())
