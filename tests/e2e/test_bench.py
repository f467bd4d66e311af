"""`python -m benchmarks`: a JSON object a configuration, a table, and what is refused."""

import json
from pathlib import Path

import pytest
from benchmarks import __main__ as bench
from benchmarks import data, floor, loader, measure, process, train
from benchmarks.config import Named, described

KEYS = {
    "config": str, "backend": str, "layer": str, "head": str, "bits": int, "channels": int, "frames": int,
    "batch": int, "seconds_per_step": float, "audio_samples_per_s": float, "peak_gib": float, "share_of_floor": float,
    "merge": str, "precision": str, "compile": bool, "threads": int, "device": str, "repeats": int,
    "seconds_min": float, "load": list, "torch": str, "rooms": dict, "floor_seconds": float, "floor": dict,
}  # fmt: skip
IN_STEP = ["kernel", "convolution", "channel_mixing", "head", "optimiser"]
BITS_8 = ("dataset.bits=8", "task.metrics=[bpb,accuracy@3]")


@pytest.fixture
def tiny(small):
    return ("experiment=audio/sashimi-sample", *small, "scheduler=none", "backend=krylov")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Small ceilings and little generated audio: nothing here looks at how fast it is."""
    monkeypatch.setattr(floor, "COPIED", {"cpu": 2**20})
    monkeypatch.setattr(floor, "SQUARES", {"cpu": (64,)})
    monkeypatch.setattr(loader, "GENERATED_BYTES", 2**14)


@pytest.fixture
def here(monkeypatch):
    """Measure in this process."""

    def in_this_process(function, named, **options):
        return process.measured(process.attempt("", lambda: function(named, **options)))

    monkeypatch.setattr(process, "in_fresh_process", in_this_process)


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        bench.main(list(words))
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def rows(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ((), {"head": "dml", "coupling": "autoregressive", "channels": 2, "bits": 16, "layer": "s4"}),
        (("decoder=categorical", *BITS_8, "dataset.is_stereo=false"), {"head": "categorical", "channels": 1}),
        (("model.unet=true", "encoder.merge=none", "decoder.coupling=independent"), {"unet": True, "merge": "none"}),
        (("model/layer=s4d", "backend=reference"), {"layer": "s4d", "backend": "reference"}),
        (("trainer.precision=bf16-mixed",), {"precision": "bf16-mixed"}),
    ],
    ids=["dml", "mono", "unet", "s4d", "bf16"],
)
def test_a_row(tiny, overrides, expected):
    row = measure.measure(Named("it", (*tiny, *overrides)), warmup=1, repeats=2, load=[0.0, 0.0, 0.0])
    assert {key: type(row[key]) for key in KEYS} == KEYS
    assert {key: row[key] for key in expected} == expected
    assert json.loads(json.dumps(row)) == row
    assert (row["config"], row["frames"], row["batch"], row["repeats"]) == ("it", 64, 4, 2)
    assert row["audio_samples_per_s"] == pytest.approx(4 * 64 * row["channels"] / row["seconds_per_step"])
    assert 0 < row["seconds_min"] <= row["seconds_per_step"]
    assert row["peak_gib"] > 0.05
    assert set(row["rooms"]) == {*IN_STEP, "rest", "data"}
    assert all(seconds > 0 for room, seconds in row["rooms"].items() if room != "rest")
    in_step = sum(row["rooms"][room] for room in (*IN_STEP, "rest"))
    assert in_step == pytest.approx(row["seconds_per_step"])
    assert list(row["floor"]) == IN_STEP
    assert all(seconds > 0 for seconds in row["floor"].values())
    assert row["floor_seconds"] == pytest.approx(sum(row["floor"].values()))
    assert row["share_of_floor"] == pytest.approx(row["floor_seconds"] / row["seconds_per_step"])


def test_train_prints_a_line_for_each_configuration(tiny, here, capsys):
    words = ("--repeats", "1", "--warmup", "0")
    assert run("train", *words, *tiny, "--json", "backend=krylov,reference") == 0
    found = rows(capsys.readouterr().out)
    assert [row["config"] for row in found] == ["backend=krylov", "backend=reference"]
    assert [row["backend"] for row in found] == ["krylov", "reference"]
    assert found[0]["load"] == found[1]["load"]


@pytest.mark.slow
def test_train_prints_a_table(tiny, here, capsys):
    assert run("train", "--preset", "stereo", "--only", "dml-8192", "--repeats", "1", *tiny[1:]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "load" in lines[0]
    assert lines[1].split()[:4] == ["configuration", "s", "a", "step"]
    assert lines[2].startswith("dml-8192 ")
    assert [line.split()[0] for line in lines[3:]] == [*IN_STEP, "rest", "data"]


@pytest.mark.slow
def test_what_cannot_be_measured_does_not_stop_the_others(tiny, here, capsys, monkeypatch):
    def explode(named, **options):
        if "decoder.coupling=independent" in named.overrides:
            raise RuntimeError("out of memory")
        return measure.measure(named, **options)

    monkeypatch.setattr(train, "measure", explode)
    words = ("train", "--json", "--repeats", "1", *tiny, "decoder.coupling=independent,autoregressive")
    assert run(*words) == 1
    out, err = capsys.readouterr()
    assert [row["coupling"] for row in rows(out)] == ["autoregressive"]
    assert "decoder.coupling=independent: not measured: RuntimeError: out of memory" in err


@pytest.mark.parametrize("folder", ["real", "generated"])
def test_data(tiny, here, capsys, stereo_folder: Path, folder):
    path = (f"dataset.path={stereo_folder}",) if folder == "real" else ("dataset.path=nowhere/at/all",)
    assert run("data", "--json", "--eats", "1000", *tiny, *path) == 0
    (row,) = rows(capsys.readouterr().out)
    assert (row["num_workers"], row["batch"], row["frames"], row["channels"]) == (0, 4, 64, 2)
    assert row["source"] == (str(stereo_folder) if folder == "real" else "generated")
    assert row["loader_samples_per_s"] > 0
    assert row["training_samples_per_s"] == 1000
    assert row["loading_share_of_step"] == pytest.approx(1000 / row["loader_samples_per_s"])


@pytest.mark.slow
def test_data_measures_what_training_takes(tiny, here, capsys):
    assert run("data", "--repeats", "1", *tiny) == 0
    heading, line = capsys.readouterr().out.splitlines()
    assert heading.split()[:2] == ["configuration", "workers"]
    assert line.endswith("%")
    assert run("data", "--repeats", "1", "--json", *tiny) == 0
    (row,) = rows(capsys.readouterr().out)
    assert row["training_samples_per_s"] > 0


def test_one_batch_is_no_rate(tiny, stereo_folder: Path):
    with pytest.raises(ValueError, match=r"one batch in an epoch.*loader\.batch_size"):
        data.measure_loader(
            Named("it", (*tiny, f"dataset.path={stereo_folder}", "loader.batch_size=11")), eats=1.0, load=[]
        )


def test_generated_audio_is_what_the_config_expects(tiny):
    cfg, datamodule, _ = described([*tiny, "dataset.sample_rate=8000", "train.train_chunk_size=1"])
    with loader.generated(cfg, datamodule, batches=5) as noise:
        noise.setup("fit")
        assert noise.spec == datamodule.spec
        batches = list(noise.train_dataloader())
        folder = noise.folder
    # One file a row, each of a clip for every batch and the one before the clock starts.
    assert [batch.codes.shape for batch in batches] == [(4, 64, 2)] * 6
    assert not folder.exists()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("tune",), 2, "invalid choice: 'tune' (choose from 'train', 'data'"),
        ((), 2, "required: command"),
        (("train", "--preset", "big"), 1, "no preset 'big'; choose --preset baseline, stereo, long, gpu"),
        (("train", "--repeats", "0"), 2, "must be 1 or more; got 0"),
        (("train", "model.dmodel=4"), 1, "model.dmodel"),
        (("train", "dataset.sample_len=abc"), 1, "dataset.sample_len"),
        (("train", "--fast"), 2, "--fast"),
        (("data", "--eats", "-1"), 2, "must be above 0; got -1"),
    ],
)
def test_mistakes_are_refused_before_anything_runs(capsys, monkeypatch, words, code, message):
    monkeypatch.setattr(process, "in_fresh_process", None)
    assert run(*words) == code
    assert message in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.slow
def test_each_configuration_has_a_process_of_its_own(tiny, capfd):
    ballast = b"x" * 2**31
    # Two ways to ask for a device that is not there: one configuration is measured, the other named.
    words = ("train", "--json", "--repeats", "1", *tiny, "trainer.accelerator=cpu,tpu")
    assert run(*words) == 1
    out, err = capfd.readouterr()
    (row,) = rows(out)
    assert row["peak_gib"] < len(ballast) / 2**30, "the peak of its own process, not of this one"
    assert "trainer.accelerator=tpu: not measured: " in err


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(900)
def test_compiled_steps_have_the_same_rooms(tiny):
    # Compiled in a process without the shape checks of the tests, which would break its graphs.
    words = ("compile=true", "activation_checkpointing=true", "model.pool=[2]", "loader.batch_size=1")
    row = process.in_fresh_process(measure.measure, Named("it", (*tiny, *words)), warmup=1, repeats=1, load=[])
    assert row["compile"] is True
    assert row["activation_checkpointing"] is True
    assert all(row["rooms"][room] > 0 for room in IN_STEP)


@pytest.mark.slow
def test_workers_read_generated_audio(tiny):
    row = process.in_fresh_process(
        data.measure_loader, Named("it", (*tiny, "loader.num_workers=1", "dataset.path=nowhere")), eats=1.0, load=[]
    )
    assert row["num_workers"] == 1
    assert row["loader_samples_per_s"] > 0


@pytest.mark.slow
def test_a_process_that_dies_is_reported(tiny):
    with pytest.raises(process.MeasurementError, match="process was killed"):
        process.in_fresh_process(die, Named("it", tiny))


def die(named: Named) -> dict:
    import os

    os._exit(1)
