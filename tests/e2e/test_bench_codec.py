"""`bench codec`: a JSON object or a table line a number of lanes, and what is refused."""

import json

import pytest
from benchmarks import __main__ as bench


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        bench.main(["codec", *words])
    return stopped.value.code


def test_a_row_for_each_number_of_lanes(dml_run, capsys):
    short = ("--checkpoint", str(dml_run), "--seconds", "0.05", "--draw", "0.01", "--repeats", "1")
    assert run(*short, "--lanes", "1,4", "--json") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["lanes"] for row in rows] == [1, 4]
    for row in rows:
        assert row["samples"] == 2 * round(0.05 * 44100)
        assert min(row["encode_samples_per_s"], row["decode_samples_per_s"], row["bits_per_sample"]) > 0
        assert sum(row["segments"].values()) == 1
    assert run(*short) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert "encode samples/s" in lines[1]


def test_a_file_can_be_measured(dml_run, prompt, capsys):
    words = ("--checkpoint", str(dml_run), "--audio", str(prompt), "--seconds", "0.01", "--repeats", "1", "--json")
    assert run(*words) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 882


def test_mistakes_are_refused(dml_run, capsys):
    assert run("--checkpoint", str(dml_run), "--audio", "missing.wav") == 1
    assert "missing.wav: there is no such file" in capsys.readouterr().err
    assert run("--seconds", "0") == 2
