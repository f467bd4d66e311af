"""`python -m benchmarks generate`: a JSON object an engine, a table, what is refused, Ctrl-C."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from benchmarks import __main__ as bench
from benchmarks import floor, floor_step, process
from benchmarks.process import in_fresh_process

from stereo_sashimi.generation.engines.engine import ENGINES, EngineError
from stereo_sashimi.generation.engines.reference_engine import ReferenceEngine
from stereo_sashimi.models.checkpoint import load

ROOT = Path(__file__).resolve().parents[2]
KEYS = {
    "engine": str, "head": str, "coupling": str, "channels": int, "bits": int, "merge": str, "batch": int,
    "frames_per_s": float, "samples_per_s": float, "ratio_to_reference": float, "share_of_floor": float, "config": str,
    "overrides": list, "layer": str, "unet": bool, "d_model": int, "width": int, "n_layers": int, "pool": list,
    "dtype": str, "frames": int, "frames_at_once": int, "repeats": int, "frames_per_s_max": float,
    "ready_seconds": float, "peak_gib": float, "threads": int, "device": str, "torch": str, "load": list,
    "floor_seconds": float, "ceilings": dict, "least_work": dict,
}  # fmt: skip
QUICK = ("--seconds", "0.001", "--repeats", "2")


class Other(ReferenceEngine):
    """The reference engine by another name."""

    name = "other"


class Picky(ReferenceEngine):
    """Runs nothing."""

    name = "picky"

    @classmethod
    def check(cls, model) -> None:
        raise EngineError("engine=picky runs no model; use engine=auto.")


@pytest.fixture
def tiny(small):
    # The batch size of the small model is for training.
    kept = (word for word in small if not word.startswith("loader.batch_size"))
    return ("experiment=audio/sashimi-sample", *kept, "scheduler=none")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Small ceilings, engines that need no compiler: nothing here looks at how fast it is."""
    monkeypatch.setattr(floor, "SQUARES", {"cpu": (64,)})
    monkeypatch.setattr(floor_step, "READ_AT_ONCE", 2**16)
    for engine in (Other, Picky):
        monkeypatch.setitem(ENGINES, engine.name, (__name__, engine.__name__))


@pytest.fixture
def here(monkeypatch):
    """Measure in this process."""
    monkeypatch.setattr(process, "in_fresh_process", lambda function, *arguments: function(*arguments))


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        bench.main(["generate", *words])
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def rows(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (("--batch", "2"), {"head": "dml", "coupling": "autoregressive", "channels": 2, "bits": 16, "batch": 2}),
        (("decoder=categorical", "dataset.bits=8", "task.metrics=[bpb]", "dataset.is_stereo=false",
          "decoder.coupling=independent"),
         {"head": "categorical", "coupling": "independent", "channels": 1, "bits": 8, "batch": 1, "width": 4}),
        (("model.unet=true", "encoder.merge=none", "decoder.coupling=independent", "loader.batch_size=3"),
         {"unet": True, "merge": "none", "width": 4, "batch": 3}),
        (("model/layer=s4d", "encoder.merge=concat", "model.pool=[2]"),
         {"layer": "s4d", "d_model": 4, "width": 8, "pool": [2]}),
        (("trainer.precision=64-true",), {"dtype": "float64"}),
    ],
    ids=["dml", "mono", "none", "s4d", "float64"],
)  # fmt: skip
def test_a_row_for_each_engine(tiny, here, capsys, overrides, expected):
    assert run(*tiny, *overrides, *QUICK, "--engine", "other", "--json") == 0
    found = rows(capsys.readouterr().out)
    assert [row["engine"] for row in found] == ["other", "reference"]
    reference = found[1]["frames_per_s"]
    for row in found:
        assert {key: type(row[key]) for key in KEYS} == KEYS
        assert {key: row[key] for key in expected} == expected
        assert row["prefill_frames_per_s"] is None
        assert row["n_layers"] == 1
        assert (row["repeats"], row["device"]) == (2, f"cpu ({torch.get_num_threads()} threads)")
        assert row["samples_per_s"] == pytest.approx(row["frames_per_s"] * row["batch"] * row["channels"])
        assert row["frames_per_s_max"] >= row["frames_per_s"] > 0
        assert row["ratio_to_reference"] == pytest.approx(row["frames_per_s"] / reference)
        assert row["share_of_floor"] == pytest.approx(row["floor_seconds"] * row["frames_per_s"])
        assert row["frames"] % math.prod(row["pool"]) == 0
        assert row["ready_seconds"] > 0
        assert row["peak_gib"] > 0.05
        assert list(row["least_work"]) == ["embedding", "ssm", "mixing", "head"]
        flops, moved = (sum(part[kind] for part in row["least_work"].values()) for kind in ("flops", "bytes"))
        ceilings = row["ceilings"]
        assert row["floor_seconds"] == pytest.approx(
            max(flops / ceilings["flops_per_s"], moved / ceilings["read_bytes_per_s"])
        )


@pytest.mark.slow
def test_batches_and_a_table(tiny, here, capsys):
    assert run("--preset", "generate", "--only", "mono", *tiny[1:], "--batch", "1,2", *QUICK, "--engine", "other") == 0
    heading, columns, *lines = capsys.readouterr().out.splitlines()
    assert "load" in heading
    assert heading.endswith("median of 2 windows")
    assert columns.split()[:4] == ["configuration", "engine", "batch", "frames/s"]
    assert columns.endswith("peak GiB")
    assert [line.split()[:4] for line in lines] == [
        ["mono", f"loader.batch_size={batch}", engine, f"{batch}"]
        for batch in (1, 2)
        for engine in ("other", "reference")
    ]


@pytest.mark.slow
def test_a_prompt_is_timed_where_it_is_asked_for(tiny, here, capsys):
    words = (*tiny, *QUICK, "--engine", "reference", "--prefill", "0.01")
    assert run(*words, "--json") == 0
    (row,) = rows(capsys.readouterr().out)
    assert row["prefill_frames_per_s"] > 0
    assert run(*words) == 0
    columns, line = capsys.readouterr().out.splitlines()[1:]
    assert columns.endswith("prefill/s")
    assert len(line) == len(columns)


@pytest.mark.slow
def test_an_engine_that_cannot_run_is_named_and_the_others_are_measured(tiny, here, capsys):
    assert run(*tiny, *QUICK, "--engine", "picky,other", "--json", "encoder.merge=sum,concat") == 1
    out, err = capsys.readouterr()
    assert [(row["merge"], row["engine"]) for row in rows(out)] == [
        (merge, engine) for merge in ("sum", "concat") for engine in ("other", "reference")
    ]
    assert err.count("engine=picky: not measured: EngineError: engine=picky runs no model; use engine=auto.") == 2
    assert "encoder.merge=sum, engine=picky: " in err


@pytest.mark.slow
def test_without_the_reference_there_is_no_ratio(tiny, here, capsys, monkeypatch):
    def fail(*_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(ReferenceEngine, "check", fail)
    monkeypatch.setattr(Other, "check", lambda *_: None)
    assert run(*tiny, *QUICK, "--engine", "other", "--json") == 1
    out, err = capsys.readouterr()
    (row,) = rows(out)
    assert row["ratio_to_reference"] is None
    assert "engine=reference: not measured: RuntimeError: out of memory" in err
    assert run(*tiny, *QUICK, "--engine", "other") == 1
    assert " - " in capsys.readouterr().out.splitlines()[2]


@pytest.mark.slow
def test_a_checkpoint_in_place_of_a_config(dml_run, here, capsys, monkeypatch):
    loaded = []

    def note(path, backend):
        loaded.append(path)
        return load(path, backend)

    monkeypatch.setattr("benchmarks.generation.load_model", note)
    words = ("--checkpoint", str(dml_run), "trainer=cpu", "--batch", "2", *QUICK, "--engine", "reference", "--json")
    assert run(*words) == 0
    (row,) = rows(capsys.readouterr().out)
    assert loaded == [row["config"]]
    assert Path(row["config"]).parent == dml_run / "checkpoints"
    config = load(row["config"]).config
    assert (row["d_model"], row["bits"], row["channels"]) == (config.model.d_model, config.spec.bits, 2)
    assert row["batch"] == 2


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--engine", "fast"), 2, "must be of auto, reference"),
        (("--engine", "other,fast"), 2, "got 'fast'"),
        (("--batch", "0"), 2, "--batch: must be 1 or more; got 0"),
        (("--batch", "1,x"), 2, "--batch: must be a whole number of 1 or more; got 'x'"),
        (("--seconds", "0"), 2, "--seconds: must be above 0; got 0"),
        (("--seconds", "soon"), 2, "--seconds: must be above 0; got soon"),
        (("--prefill", "-1"), 2, "--prefill: must be above 0; got -1"),
        (("--repeats", "0"), 2, "must be 1 or more; got 0"),
        (("--preset", "baseline"), 1, "no preset 'baseline'; choose --preset generate, generate-gpu"),
        (("--preset", "generate", "--only", "tri*"), 1, "--only 'tri*' matches none of mono loader.batch_size=1, "),
        (("model.dmodel=4",), 1, "model.dmodel"),
        (("loader.batch_size=0",), 1, "loader.batch_size"),
        (("--checkpoint", "nowhere"), 1, "There is no checkpoint nowhere."),
        (("--checkpoint", "nowhere", "--preset", "generate"), 1, "Leave one of them out."),
        (("--checkpoint", "nowhere", "model.d_model=8"), 1, "model.d_model=8 has no effect beside --checkpoint"),
    ],
)
def test_mistakes_are_refused_before_anything_runs(capsys, monkeypatch, words, code, message):
    monkeypatch.setattr(process, "in_fresh_process", None)
    assert run(*words) == code
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


@pytest.mark.slow
def test_each_configuration_has_a_process_of_its_own(tiny, capfd):
    ballast = b"x" * 2**31
    # Two ways to ask for a device that is not there: one configuration is measured, the other named.
    assert run(*tiny, *QUICK, "--engine", "reference", "--json", "trainer.accelerator=cpu,tpu") == 1
    out, err = capfd.readouterr()
    (row,) = rows(out)
    assert row["peak_gib"] < len(ballast) / 2**30, "the peak of its own process, not of this one"
    assert "trainer.accelerator=tpu: not measured: " in err
    assert "Traceback" not in err


@pytest.mark.slow
def test_a_mistake_of_ours_shows_where(tiny):
    with pytest.raises(RuntimeError, match=r"(?s)process that measures.*in broken.*KeyError: 'one'"):
        in_fresh_process(broken, tiny)


def broken(words) -> None:
    raise KeyError("one")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks for child processes in /proc")
@pytest.mark.parametrize("wait", [0.0, 8.0], ids=["starting", "measuring"])
def test_ctrl_c_ends_the_processes_without_a_traceback(tiny, wait):
    # Windows that never end; the signal goes to all processes, as from a terminal.
    words = ("generate", *tiny, "--engine", "reference", "--seconds", "100000")
    command = subprocess.Popen(
        [sys.executable, "-m", "benchmarks", *words], cwd=ROOT, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        children = Path(f"/proc/{command.pid}/task/{command.pid}/children")
        # The one that measures, and multiprocessing's own.
        while len(found := children.read_text().split()) < 2:
            assert command.poll() is None, command.communicate()
            time.sleep(0.05)
        time.sleep(wait)
        os.killpg(command.pid, signal.SIGINT)
        out, err = command.communicate(timeout=60)
    finally:
        command.kill()
    assert command.returncode == 130
    assert out == ""
    assert err.strip().splitlines()[-1] == "Interrupted."
    assert "Traceback" not in err
    deadline = time.monotonic() + 10
    while left := [pid for pid in found if running(pid)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def running(pid: str) -> bool:
    try:
        # Where nobody waits for orphans they stay as zombies.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
