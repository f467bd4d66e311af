"""Training from config to run folder: numbers, files, options. Checkpoints are in `test_resume.py`."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from pytorch_lightning.callbacks import Callback
from running import saved
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

CATEGORICAL = ("dataset.bits=8", "decoder=categorical", "encoder.init=normal")
NO_LOGS = ("logger=none", "train.validate_before=false")


class Watch(Callback):
    """Keeps what each training step saw: loss, numbers, learning rates, gradient norm, clips."""

    def __init__(self):
        self.losses, self.rates, self.norms, self.clips, self.validations = [], [], [], [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(float(outputs["loss"]))
        self.rates.append({g["name"]: g["lr"] for g in trainer.optimizers[0].param_groups})
        grads = [p.grad.norm() for p in pl_module.parameters() if p.grad is not None]
        self.norms.append(float(torch.stack(grads).norm()))
        self.clips.append(batch.clips.tolist())

    def on_validation_end(self, trainer, pl_module):
        self.validations.append(sum(trainer.num_val_batches))


def rows_of(run: Path) -> list[dict[str, str]]:
    with open(run / "csv" / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def column(run: Path, name: str) -> list[float]:
    return [float(row[name]) for row in rows_of(run) if row.get(name)]


def test_stereo_dml_leaves_a_complete_run(train, tmp_path, capsys):
    run, watch = tmp_path / "run", Watch()
    result = train("train.test=true", watchers=[watch])
    assert result["status"] == "finished"
    assert result["steps"] == 3
    assert json.loads((run / "run.json").read_text()) == result
    assert result["model"]["spec"] == {
        "sample_rate": 44100, "n_channels": 2, "bits": 16, "quantization": "linear", "normalize": "none",
    }  # fmt: skip
    for when in ("validation_before", "validation_after"):
        numbers = result[when]
        assert set(numbers) == {
            f"val/{name}{suffix}" for name in ("loss", "bits_per_sample", "bpb") for suffix in ("", "/left", "/right")
        }
        assert numbers["val/bits_per_sample"] == pytest.approx(numbers["val/loss"] / math.log(2), rel=1e-6)
        assert numbers["val/bpb"] == pytest.approx(numbers["val/bits_per_sample"] / 2, rel=1e-6)
        assert numbers["val/loss"] == pytest.approx((numbers["val/loss/left"] + numbers["val/loss/right"]) / 2)
    assert result["validation_after"]["val/loss"] < result["validation_before"]["val/loss"]
    assert math.isfinite(result["test"]["test/bits_per_sample/right"])
    for name in ("best", "last"):
        assert Path(result[name]) == run / "checkpoints" / f"{name}.ckpt"
        assert Path(result[name]).is_file()
    assert not list(run.glob("*.tmp"))
    for channel in ("left", "right"):
        losses = column(run, f"train/loss/{channel}")
        assert len(losses) == 3
        assert np.isfinite(losses).all()
    # The last batch of the epoch has three clips of four, and that share in the loss of its step.
    assert column(run, "train/loss") == pytest.approx(
        [loss / share for loss, share in zip(watch.losses, (1, 1, 0.75), strict=True)], rel=1e-5
    )
    assert len(column(run, "train/samples_per_s")) == 3
    events = EventAccumulator(str(run / "tensorboard")).Reload().Tags()
    assert {"train/loss", "lr-AdamW/decay", "lr-AdamW/ssm"} <= set(events["scalars"])
    assert not [name for name in events["scalars"] if "hp_metric" in name or "/pg" in name]
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed[:7]] == ["data", "split", "model", "optim", "backend", "run", "resume"]
    assert "2 channels (left, right)  44.1 kHz  16 bit linear, 65,536 levels  11 train + 11 valid clips" in printed[0]
    assert "valid 1 file" in printed[1]
    assert "decoder dml, autoregressive" in printed[2]
    assert printed[-1].startswith("finished after 3 steps")


def test_categorical_accuracies_of_each_channel(train, tmp_path):
    result = train(*CATEGORICAL, "task.metrics=[bpb,accuracy,accuracy@5]", "decoder.coupling=autoregressive")
    after = result["validation_after"]
    for suffix in ("", "/left", "/right"):
        assert 0 <= after[f"val/accuracy{suffix}"] <= after[f"val/accuracy@5{suffix}"] <= 1
        assert after[f"val/bpb{suffix}"] == pytest.approx(after[f"val/bits_per_sample{suffix}"])
    assert len(column(tmp_path / "run", "train/accuracy@5/left")) == 3


@pytest.mark.parametrize("options", [(), CATEGORICAL], ids=["dml", "categorical"])
@pytest.mark.parametrize("source", ["mono_folder", "stereo_folder"])
def test_mono_is_the_same_run_with_one_channel(train, request, options, source):
    # A stereo folder is mixed down.
    data = request.getfixturevalue(source)
    result = train(*options, *NO_LOGS, "train.validate_before=true", "dataset.is_stereo=false", data=data)
    assert result["model"]["spec"]["n_channels"] == 1
    assert not [name for name in result["validation_after"] if name.endswith(("/left", "/mono"))]
    assert result["validation_after"]["val/loss"] < result["validation_before"]["val/loss"]


@pytest.mark.parametrize("experiment", ["sashimi-musdb18stereo", "sashimi-dml-musdb18stereo"])
def test_the_16_bit_experiments_train(train, small, experiment):
    watch = Watch()
    options = ("trainer.max_steps=2", "trainer.limit_val_batches=1", "logger=none", "loader.batch_size=1")
    result = train(f"experiment=audio/{experiment}", *options, base=small, watchers=[watch])
    assert result["steps"] == 2
    # Untrained weights know nothing: ln 65536 = 11.09 nats.
    assert 9 < watch.losses[0] < 14
    assert ("train/accuracy@10" in result["train"]) == ("dml" not in experiment)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:You requested to overfit")
def test_the_loss_falls_on_one_batch(train):
    watch = Watch()
    train(
        *CATEGORICAL,
        *NO_LOGS,
        "debug=overfit",
        "optimizer.lr=0.02",
        "trainer.max_steps=25",
        "scheduler.total_steps=25",
        watchers=[watch],
    )
    assert watch.clips == [watch.clips[0]] * 25
    assert watch.losses[-1] < watch.losses[0] - 0.7


def test_chunks_bound_an_epoch_and_a_validation(train):
    watch = Watch()
    sizes = ("loader.batch_size=2", "train.train_chunk_size=4", "train.val_chunk_size=6", "trainer.max_epochs=3")
    result = train(*CATEGORICAL, *NO_LOGS, *sizes, "trainer.max_steps=-1", watchers=[watch])
    assert result["steps"] == 2 + 2 + 2  # 11 clips: 4, 4 and 3
    epochs = [sorted(watch.clips[i] + watch.clips[i + 1]) for i in (0, 2, 4)]
    assert epochs == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    assert watch.validations == [3, 3, 3]


@pytest.mark.parametrize("unet", [False, True])
@pytest.mark.parametrize("layer", ["s4", "s4d"])
def test_backbones_train(train, unet, layer):
    watch = Watch()
    result = train(*CATEGORICAL, *NO_LOGS, f"model.unet={unet}", f"model/layer={layer}", watchers=[watch])
    assert result["model"]["model"]["unet"] is unet
    assert result["model"]["model"]["layer"]["kind"] == layer
    assert np.isfinite(watch.losses).all()


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["krylov", "reference"])
def test_a_kernel_backend_changes_nothing(train, backend):
    watch = Watch()
    train(*CATEGORICAL, *NO_LOGS, f"backend={backend}", watchers=[watch])
    auto = Watch()
    train(*CATEGORICAL, *NO_LOGS, watchers=[auto])
    assert watch.losses == pytest.approx(auto.losses, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "decoder", [("decoder=dml",), ("decoder=categorical", "dataset.bits=8")], ids=["dml", "logits"]
)
def test_bf16_mixed_keeps_weights_and_moments_in_float32(train, tmp_path, decoder):
    words = ("logger=none", "encoder.init=normal", *decoder)
    single, mixed = (
        train(*words, f"trainer.precision={precision}", run=tmp_path / precision)
        for precision in ("32-true", "bf16-mixed")
    )
    before, after = (run["validation_after"]["val/loss"] for run in (single, mixed))
    assert after == pytest.approx(before, rel=1e-2)
    assert after != before
    content = saved(tmp_path / "bf16-mixed")
    weights = [value for value in content["state_dict"].values() if value.is_floating_point()]
    moments = [value for state in content["optimizer_states"][0]["state"].values() for value in state.values()]
    assert {value.dtype for value in weights} == {torch.float32}
    assert {value.dtype for value in moments} == {torch.float32}


@pytest.mark.slow
def test_schedulers(train, small):
    rates = {}
    for scheduler, own in {
        "none": (),
        "plateau": ("scheduler.patience=0", "scheduler.factor=0.5", "train.train_chunk_size=4", "train.mode=max"),
        "cosine_warmup": ("scheduler.total_steps=6", "scheduler.warmup_steps=2"),
    }.items():
        watch = Watch()
        options = (f"scheduler={scheduler}", *own, "trainer.max_steps=6", "task.metrics=[bpb]", "logger=none")
        train("dataset=sample", *CATEGORICAL, *options, base=small, watchers=[watch])
        rates[scheduler] = watch.rates
    assert rates["none"] == [{"ssm": 0.001, "ssm_output": 0.004, "no_decay": 0.004, "decay": 0.004}] * 6
    # mode=max of a falling loss: every epoch (one step) after the first is without improvement.
    assert rates["plateau"][0]["decay"] == 0.004
    assert rates["plateau"][-1]["decay"] < 0.004 / 4
    assert rates["plateau"][-1]["ssm"] == pytest.approx(rates["plateau"][-1]["decay"] / 4)
    # Seen after the scheduler's step, so the last is the end of the half cosine.
    cosine = [rate["decay"] / 0.004 for rate in rates["cosine_warmup"]]
    expected = [0.5 * (1 + math.cos(math.pi * s / 4)) for s in range(1, 5)]
    assert cosine == pytest.approx([1.0, 1.0, *expected], abs=1e-9)


def test_gradients_are_clipped(train):
    free, clipped = Watch(), Watch()
    train(*CATEGORICAL, *NO_LOGS, "trainer.gradient_clip_val=null", watchers=[free])
    train(*CATEGORICAL, *NO_LOGS, "trainer.gradient_clip_val=0.01", watchers=[clipped])
    assert min(free.norms) > 0.02
    assert clipped.norms == pytest.approx([0.01] * 3, rel=1e-3)


def test_gradients_accumulate(train):
    watch = Watch()
    result = train(*CATEGORICAL, *NO_LOGS, "trainer.accumulate_grad_batches=3", "loader.batch_size=1", watchers=[watch])
    assert result["steps"] == 3
    assert len(watch.losses) == 9


def test_without_loggers_nothing_is_logged(train, tmp_path):
    train(*CATEGORICAL, *NO_LOGS)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"run.json", "checkpoints"}


def test_a_run_that_never_validates_has_no_best(train, tmp_path):
    result = train(*CATEGORICAL, *NO_LOGS, "trainer.limit_val_batches=0")
    assert result["best"] is None
    assert "validation_after" not in result
    assert {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()} == {"last.ckpt"}


def test_the_last_weights_are_validated_once_also_in_a_run_shorter_than_an_interval(train, tmp_path):
    options = (*CATEGORICAL, *NO_LOGS, "trainer.check_val_every_n_epoch=2", "trainer.max_epochs=1")
    watch = Watch()
    result = train(*options, watchers=[watch])
    assert len(watch.validations) == 1
    best = saved(tmp_path / "run", "best")
    assert best["global_step"] == result["steps"] == 3
    # Nothing is left to do for the run that goes on from its end, and it knows the best score.
    again = train(*options, f"checkpoint={tmp_path}/run/checkpoints/last.ckpt", run=tmp_path / "b", watchers=[watch])
    assert len(watch.validations) == 1
    assert again["best_score"] == result["best_score"] > 0


@pytest.mark.slow
def test_wandb_offline_takes_audio(train, tmp_path, monkeypatch):
    import wandb

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.chdir(tmp_path)
    options = ("logger=wandb", "callbacks=default", "callbacks.samples.seconds=0.001")
    try:
        train(*CATEGORICAL, *options, "callbacks.samples.every_n_validations=1")
        history = dict(wandb.run.summary)
    finally:
        wandb.finish()
    assert math.isfinite(history["train/loss/left"])
    assert history["sample/audio"]["_type"] == "audio-file"
    assert list((tmp_path / "run").glob("wandb/offline-run-*"))


@pytest.mark.slow
def test_samples_are_drawn_at_validation(train, tmp_path):
    run = tmp_path / "run"
    train(*CATEGORICAL, "callbacks=default", "callbacks.samples.seconds=0.002",
          "callbacks.samples.every_n_validations=1")  # fmt: skip
    audio, rate = soundfile.read(run / "samples" / "step-3.wav", dtype="int16", always_2d=True)
    assert rate == 44100
    assert audio.shape == (88, 2)
    # One draw: neither the validation before training nor the one after counts.
    assert {path.name for path in (run / "samples").iterdir()} == {"step-3.wav", "step-3.png"}


@pytest.mark.slow
def test_drawing_samples_does_not_change_training(train, tmp_path):
    quiet, drawing = Watch(), Watch()
    options = (*CATEGORICAL, *NO_LOGS, "train.train_chunk_size=4", "model.dropout=0.2")
    train(*options, watchers=[quiet])
    train(*options, "callbacks=default", "callbacks.samples.seconds=0.001", "callbacks.samples.every_n_validations=1",
          watchers=[drawing])  # fmt: skip
    assert quiet.losses == drawing.losses
    assert len(list((tmp_path / "run" / "samples").glob("*.wav"))) == 3
