"""`resume=<run>`: the command line that a run was started with comes back, and the command that says so is short."""

from pathlib import Path

import pytest

from stereo_sashimi.commands.cli import launch
from stereo_sashimi.commands.train.resume import last_checkpoint, resume_command, with_saved_overrides

SAVED = """\
- experiment=audio/folder
- dataset.path="my music"
- trainer.max_steps=9
- +trainer.benchmark=true
- checkpoint=older/checkpoints/last.ckpt
"""


@pytest.fixture
def run(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "runs" / "a"
    for file, text in ((".hydra/overrides.yaml", SAVED), ("checkpoints/last.ckpt", "")):
        (run / file).parent.mkdir(parents=True)
        (run / file).write_text(text)
    return run


def test_what_was_typed_comes_back_and_what_is_typed_now_wins(run):
    words = ["trainer.max_steps=20", "resume=runs/a", "trainer.benchmark=false", "loader.num_workers=2"]
    assert with_saved_overrides(words) == [
        "experiment=audio/folder", 'dataset.path="my music"', "checkpoint=runs/a/checkpoints/last.ckpt",
        "trainer.max_steps=20", "trainer.benchmark=false", "loader.num_workers=2",
    ]  # fmt: skip
    assert with_saved_overrides(["a=1"]) == ["a=1"]
    assert with_saved_overrides(["resume=null", "a=1"])[-1] == "a=1"


def test_the_command_to_go_on_is_short_where_the_run_knows_the_rest(run):
    last = run / "checkpoints" / "last.ckpt"
    assert resume_command(last) == "python train.py resume=runs/a"
    assert resume_command(last.with_name("previous.ckpt")).endswith("checkpoint=runs/a/checkpoints/previous.ckpt")
    (run / ".hydra" / "overrides.yaml").unlink()
    assert resume_command(last) == "python train.py checkpoint=runs/a/checkpoints/last.ckpt"


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        (
            ".hydra/overrides.yaml",
            r"no .*overrides\.yaml.*train\.py <overrides> checkpoint=runs/a/checkpoints/last",
        ),
        ("checkpoints/last.ckpt", r"resume=runs/a: there is no file runs/a/checkpoints/last\.ckpt\. Give a run folder"),
    ],
)
def test_a_run_without_its_files_is_refused(run, lost, message):
    (run / lost).unlink()
    with pytest.raises(ValueError, match=message):
        launch("train", ["resume=runs/a"])


def test_a_run_folder_means_its_last_checkpoint(run):
    last = run / "checkpoints" / "last.ckpt"
    assert last_checkpoint(run) == last_checkpoint(last) == last
    with pytest.raises(ValueError, match=r"checkpoint=runs/b: there is no file runs/b\."):
        last_checkpoint("runs/b")


@pytest.mark.parametrize("key", ["hydra.run.dir", "paths.runs"])
def test_a_run_folder_that_cannot_be_made_is_a_sentence(run, key):
    Path("file").write_text("")
    with pytest.raises(ValueError, match=rf"{key}=.*file/a cannot be made: .*file is a file\. Give another .*{key}="):
        launch("train", [f"{key}=file/a"])


def test_a_refused_start_leaves_no_folder_and_none_is_lost(run):
    for place in ([], ["hydra.run.dir=runs/a"]):
        with pytest.raises(SystemExit):
            launch("train", ["dataset=folder", "dataset.path=nowhere", *place])
        assert [path.name for path in Path("runs").iterdir()] == ["a"]
    assert (run / "checkpoints" / "last.ckpt").is_file()
