"""`python -m benchmarks`: each at its smallest; a step is Lightning's step; variants in turns; what is refused."""

import copy
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from benchmarks import __main__ as bench
from benchmarks import codec, data, generate, measure, roofline, train
from benchmarks.configs import combinations, composed, split_settings

from stereo_sashimi.nn import S4, S4Config

ROOT = Path(__file__).resolve().parents[2]
QUICK = ("bench.repeats=2", "bench.seconds=0.001")
quiet = pytest.mark.filterwarnings(r"ignore:.*self\.log\(\)")


@pytest.fixture
def tiny(small):
    return ("experiment=audio/sashimi-sample", *small, "scheduler=none")


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        bench.main(list(words))
    return stopped.value.code


@pytest.mark.parametrize(
    "overrides",
    [("trainer.gradient_clip_val=0.01",), ("trainer.precision=bf16-mixed", "trainer.gradient_clip_val=null")],
    ids=["clipped", "bf16"],
)
@quiet
def test_a_step_is_the_trainer_s(tiny, overrides):
    found = composed([*tiny, "dataset.bits=8", "loader.batch_size=2", *overrides])
    step = train.Step(found)
    assert step.batch.codes.shape == (2, 64, 2)
    assert 240 < step.batch.codes.max() < 256
    task = copy.deepcopy(step.task)
    trainer = pl.Trainer(
        accelerator="cpu", max_steps=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, limit_val_batches=0, precision=found.cfg.trainer.precision,
        gradient_clip_val=found.cfg.trainer.gradient_clip_val,
    )  # fmt: skip
    loader = torch.utils.data.DataLoader([step.batch], batch_size=None)
    trainer.fit(task, loader, loader)
    step()
    trained = step.task.state_dict()
    assert all(torch.equal(trained[name], value) for name, value in task.state_dict().items() if "model." in name)


@pytest.mark.parametrize(
    ("module", "words", "pieces"),
    [
        (train, ("decoder=categorical", "dataset.bits=8", "train.carry_state=true", "bench.profile=true"), ["step"]),
        (data, ("dataset.path=nowhere/at/all",), ["batch"]),
        (generate, ("bench.engine=reference", "bench.prefill=20", "loader.batch_size=2"), ["draw", "prefill"]),
        (codec, ("bench.lanes=2", "bench.frames=200"), ["encode", "decode"]),
        (roofline, ("encoder.merge=none", "decoder.coupling=independent"), ["head", "optimizer"]),
        (roofline, ("trainer.precision=bf16-mixed", "train.carry_state=true", "backend=krylov"), ["optimizer"]),
    ],
)
@quiet
def test_each_measures_what_it_says(tiny, monkeypatch, module, words, pieces):
    monkeypatch.setattr(roofline, "COPIED", {"cpu": 2**20})
    monkeypatch.setattr(roofline, "SQUARES", {"cpu": (64,)})
    monkeypatch.setattr(data, "GENERATED_BYTES", 2**14)
    overrides, settings = split_settings((*(() if module is codec else tiny), *words), module.Settings)
    module.check(overrides, settings)
    works = module.prepare(overrides, settings)
    assert list(works)[-len(pieces) :] == pieces
    for work in works.values():
        work.run()
        assert work.amount > 0 or work.least_seconds > 0
        json.dumps(work.facts)
    if module is roofline:
        assert {name.split()[0] for name in works} == {"DownPool", "S4", "FeedForward", "UpPool", "head", "optimizer"}


def test_files_of_a_data_set_are_read(tiny, stereo_folder):
    (work,) = data.prepare((*tiny, f"dataset.path={stereo_folder}"), measure.Settings()).values()
    assert work.facts["source"] == str(stereo_folder)
    assert work.amount == 4 * 64 * 2
    # Eleven clips are two batches and a rest; the loader begins again.
    assert [len(work.run().codes) for _ in range(4)].count(4) >= 2


def test_operations_of_an_s4_layer():
    layer = S4(8, S4Config(d_state=4))
    # Kernel, FFTs of 32 (9 for two rows: 4 each and 2 a channel), spectra of 17, gate of 8 x 16.
    kernel, gate = 3 * 2 * 4 * 8 * 16, 3 * 2 * 8 * 16 * 2 * 16
    expected = kernel + gate + 5 * 32 * 5 / 2 * (4 * 2 * 8 + 2 * 8) + 3 * 6 * 17 * 2 * 8
    assert roofline.s4_flops(layer, (2, 16, 8)) == expected


@pytest.mark.slow
def test_variants_are_measured_in_turns_and_one_that_cannot_be_does_not_stop_the_others(tiny, capfd):
    # The last one needs a package that is no dependency.
    variants = "trainer.precision=32-true,64-true,transformer-engine"
    assert run("train", *tiny, *QUICK, "bench.json=true", variants) == 1
    out, err = capfd.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["variant"] for row in rows] == ["trainer.precision=32-true", "trainer.precision=64-true"]
    for row in rows:
        assert row["samples/s"] == pytest.approx(4 * 64 * 2 / row["seconds"])
        assert row["ratio"] == pytest.approx(rows[0]["seconds"] / row["seconds"])
        assert 0.05 < row["peak_gib"] < 8
        assert 0 < row["fastest"] <= row["seconds"]
    assert err.count("transformer-engine: not measured: ") == 1
    assert "Traceback" not in err


def test_choices_are_multiplied_out_and_named_by_what_differs():
    found = combinations(["decoder=dml", "backend=krylov,reference", "model.pool=[2,2]", "bench.engine=a,b"])
    assert list(found)[1:3] == ["backend=krylov bench.engine=b", "backend=reference bench.engine=a"]
    assert found["backend=krylov bench.engine=b"] == (
        "decoder=dml",
        "backend=krylov",
        "model.pool=[2,2]",
        "bench.engine=b",
    )
    assert combinations([]) == {"as given": ()}


def test_a_table_says_once_what_all_rows_share():
    rows = [{"what": name, "device": "cpu", "seconds": seconds} for name, seconds in (("a", 0.51234), ("b", 12345.6))]
    assert measure.table(rows).splitlines() == [
        "device: cpu", "", "| what | seconds |", "| --- | --- |", "| a | 0.5123 |", "| b | 12,346 |"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("tune",), "no benchmark 'tune'; choose train, data, generate"),
        (("train", "bench.repeat=1"), "repeat"),
        (("train", "bench.repeats=0"), "bench.repeats must be at least 1"),
        (("train", "model.dmodel=4"), "model.dmodel"),
        (("train", "optimizer.lr=interval(0,1)"), "optimizer.lr=a,b"),
        (("generate", "bench.engine=fast"), "must be of auto, reference"),
        (("generate", "loader.batch_size=0"), "loader.batch_size"),
        (("generate", "bench.checkpoint=nowhere"), "There is no checkpoint nowhere."),
        (("generate", "bench.checkpoint=pretrained", "model.d_model=8"), "model.d_model=8 has no effect beside"),
        (("codec", "bench.audio=missing.wav"), "missing.wav: there is no such file"),
    ],
)
def test_mistakes_are_refused_before_anything_runs(capsys, words, message):
    assert run(*words) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks for child processes in /proc")
def test_ctrl_c_ends_all_processes_without_a_traceback(tiny):
    command = subprocess.Popen(
        [sys.executable, "-m", "benchmarks", "train", *tiny, "bench.seconds=100000"], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    children = Path(f"/proc/{command.pid}/task/{command.pid}/children")
    # The one that measures, and multiprocessing's own.
    while command.poll() is None and len(children.read_text().split()) < 2:
        time.sleep(0.05)
    # To all processes, as from a terminal.
    os.killpg(command.pid, signal.SIGINT)
    out, err = command.communicate(timeout=60)
    assert (command.returncode, out) == (130, "")
    assert err.strip().splitlines()[-1] == "Interrupted."
    assert "Traceback" not in err
