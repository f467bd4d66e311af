"""Finding runs and their checkpoints by name, by folder, or the newest that finished."""

import json
import os
from pathlib import Path

import pytest

from stereo_sashimi.commands.shared.runs import find_checkpoint, newest_finished, run_folder


def make_run(folder: Path, *, status: str | None = "finished", names=("best", "last"), age: int = 0) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    for name in names:
        (folder / "checkpoints" / f"{name}.ckpt").write_bytes(b"x")
    if status is not None:
        (folder / "run.json").write_text(json.dumps({"status": status}))
        os.utime(folder / "run.json", (10_000 - age, 10_000 - age))
    return folder


def test_a_file_is_taken_as_it_is(tmp_path):
    last = make_run(tmp_path / "run") / "checkpoints" / "last.ckpt"
    assert find_checkpoint(str(last), "nowhere") == last


@pytest.mark.parametrize(("names", "expected"), [(("best", "last"), "best.ckpt"), (("last",), "last.ckpt")])
def test_a_folder_gives_its_best_or_last(tmp_path, names, expected):
    run = make_run(tmp_path / "run", status="running", names=names)
    assert find_checkpoint(str(run), "nowhere") == run / "checkpoints" / expected


def test_the_newest_finished_run(tmp_path, capsys):
    make_run(tmp_path / "z-old", age=50)
    expected = make_run(tmp_path / "a-finished", age=20)
    make_run(tmp_path / "running", status="running", age=5)
    make_run(tmp_path / "stopped", status=None)
    broken = make_run(tmp_path / "broken", age=1)
    (broken / "run.json").write_text('{"status": "fini')
    make_run(tmp_path / "without-weights", names=(), age=2)
    assert newest_finished(tmp_path / ".") == tmp_path / "without-weights"
    assert find_checkpoint(None, str(tmp_path)) == expected / "checkpoints" / "best.ckpt"
    assert capsys.readouterr().err == ""
    # The folder itself stands for it too; then a line says which run that is.
    assert find_checkpoint(str(tmp_path), "nowhere") == expected / "checkpoints" / "best.ckpt"
    assert capsys.readouterr().err.endswith("newest finished run is taken, a-finished/checkpoints/best.ckpt\n")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("{", "damaged"),
        ("[3]", "damaged"),
        ("{}", "damaged"),
        ("[" * 9999, "damaged"),
        ('{"status": "failed"}', "failed"),
    ],
)
def test_runs_that_did_not_finish_are_named(tmp_path, text, word):
    (make_run(tmp_path / "mine") / "run.json").write_text(text)
    for given, runs in ((str(tmp_path), "nowhere"), (None, str(tmp_path))):
        with pytest.raises(ValueError, match=rf"no finished run .*\(mine: .*{word}\).*checkpoint=runs/<run>"):
            find_checkpoint(given, runs)


def test_nothing_to_find(tmp_path):
    with pytest.raises(ValueError, match=r"no finished run under .*python train\.py.*checkpoint=runs/<run>"):
        find_checkpoint(None, str(tmp_path))
    with pytest.raises(ValueError, match="no finished run"):
        newest_finished(tmp_path / "absent")
    run = make_run(tmp_path / "2026-01-02")
    for given, meant in (("pretraned", "pretrained"), (tmp_path / "2026-01-03", run)):
        with pytest.raises(ValueError, match=rf"There is no checkpoint {given}\. Did you mean {meant}\?"):
            find_checkpoint(str(given), "runs")
    with pytest.raises(ValueError, match=r"holds no model: .*checkpoints/best\.ckpt, .* no finished run"):
        find_checkpoint(str(make_run(tmp_path / "empty", names=())), "runs")


def test_the_run_of_a_checkpoint(tmp_path):
    run = make_run(tmp_path / "run")
    assert run_folder(run / "checkpoints" / "best.ckpt") == run.resolve()
    assert run_folder(tmp_path / "loose.ckpt") == tmp_path.resolve()
