"""The report of a run: its numbers and its samples as a table, from JSON files alone."""

import base64
import io
import json
import os
import re

import numpy as np
import pytest
import soundfile

from stereo_sashimi.audio.io import write_pcm
from stereo_sashimi.commands.cli import main
from stereo_sashimi.commands.report.report_command import as_text, report, write_report

SPEC = {"sample_rate": 44100, "n_channels": 2, "bits": 16}
RESULT = {
    "status": "finished", "steps": 300,
    "model": {"spec": SPEC, "decoder": {"kind": "dml", "coupling": "autoregressive"}},
    "validation_before": {"val/bits_per_sample": 16.25, "val/bits_per_sample/left": 16.5,
                          "val/bits_per_sample/right": 16.0},
    "validation_after": {"val/bits_per_sample": 11.0, "val/bits_per_sample/left": 11.5,
                         "val/bits_per_sample/right": 10.5},
}  # fmt: skip
SAMPLE = {
    "seconds": 1.0, "bits_per_sample": {"pooled": 9.5},
    "audio": {"peak_dbfs/left": -1.25, "peak_dbfs/right": None, "silent_share/left": 0.5, "silent_share/right": 1.0,
              "clipped_share/left": 0.0, "clipped_share/right": 0.25, "correlation": None},
}  # fmt: skip


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "runs" / "a"
    (folder / "samples").mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(RESULT))
    (folder / "samples" / "sample-seed0.json").write_text(json.dumps(SAMPLE))
    return folder


def test_numbers_and_samples(run):
    text = as_text(report(run))
    assert text.startswith("# Run a\n\nfinished, 300 steps; 2 channels, 44100 Hz, 16 bit; decoder dml, autoregressive")
    assert "| before training | 16.250 (left 16.500, right 16.000) |" in text
    assert "| after training | 11.000 (left 11.500, right 10.500) |" in text
    assert "| gain | 5.250 |" in text
    cells = "1.00 | 9.500 | -1.2 none | 50.0% 100.0% | 0.0% 25.0% | none |"
    assert f"| {run / 'samples' / 'sample-seed0.wav'} | {cells}" in text


def test_a_run_without_validation_or_samples(run):
    bare = {key: value for key, value in RESULT.items() if not key.startswith("validation")} | {"status": "running"}
    (run / "run.json").write_text(json.dumps(bare))
    (run / "samples" / "sample-seed0.json").unlink()
    assert "|" not in as_text(report(run))


def test_a_mono_sample_of_another_format(run):
    audio = {"peak_dbfs/mono": -3.0, "silent_share/mono": 0.0, "clipped_share/mono": 0.0}
    sample = SAMPLE | {"file": "sample-seed0.flac", "audio": audio}
    (run / "samples" / "sample-seed0.json").write_text(json.dumps(sample))
    assert f"| {run / 'samples' / 'sample-seed0.flac'} | 1.00 | 9.500 | -3.0 | 0.0% | 0.0% | none |" in as_text(
        report(run)
    )


def test_the_command_writes_and_prints(run, capsys):
    older = run.parent / "older"
    older.mkdir()
    (older / "run.json").write_text(json.dumps(RESULT))
    os.utime(older / "run.json", (1, 1))
    for given in (run, run.parent):
        main("report", [f"run={given}"])
        assert capsys.readouterr().out == f"{as_text(report(run))}\npage {run.resolve() / 'report.html'}\n"
    assert (run / "report.html").is_file()
    assert not (older / "report.html").exists()
    assert not list(run.glob(".*"))


def test_the_page_has_players_pictures_and_the_learning_curve(run, tmp_path):
    pcm = (np.random.default_rng(0).standard_normal((4000, 2)) * 3000).astype(np.int16)
    more = tmp_path / "more"
    more.mkdir()
    for folder, name in ((run / "samples", "sample-seed0"), (more, "a & b")):
        write_pcm(folder / f"{name}.wav", pcm, 16000)
        sample = SAMPLE | {"file": f"{name}.wav", "spec": SPEC | {"sample_rate": 16000}}
        (folder / f"{name}.json").write_text(json.dumps(sample))
    (run / "csv").mkdir()
    (run / "csv/metrics.csv").write_text("step,train/bits_per_sample,val/bits_per_sample\n9,8.5,\n19,7.5,\n19,,7.75\n")
    text = write_report(report(run, [more]), run).read_text()
    sounds = [base64.b64decode(found) for found in re.findall('src="data:audio/flac;base64,([^"]*)"', text)]
    assert len(sounds) == 2
    for sound in sounds:
        found, rate = soundfile.read(io.BytesIO(sound), dtype="int16")
        assert rate == 16000
        assert np.array_equal(found, pcm)
    assert text.count('src="data:image/webp;base64,') == 2
    assert text.count('src="data:image/png;base64,') == 1
    assert "a &amp; b" in text
    assert "<script" not in text
    # What the page shows does not hang on files that have gone.
    (more / "a & b.wav").unlink()
    text = write_report(report(run, [more]), run).read_text()
    assert text.count("data:audio/flac") == 1
    assert "No player of this sample" in text


def test_folders_without_samples_are_named(run, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main("report", [f"run={run}", f"sounds={tmp_path}"])
    assert f"sounds={tmp_path} holds no samples" in capsys.readouterr().err


def test_no_run(tmp_path, capsys):
    with pytest.raises(ValueError, match=r"is no run: it has no run\.json"):
        report(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main("report", [f"run={tmp_path}"])
    assert stopped.value.code == 1
    assert "no finished run" in capsys.readouterr().err
