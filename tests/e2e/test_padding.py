"""Start codes, skipped frames and padded ends: what reaches the loss of a run."""

from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from stereo_sashimi.commands.train import build
from stereo_sashimi.data.dataset import Batch
from stereo_sashimi.tasks import AutoregressiveTask

CATEGORICAL = ("dataset.bits=8", "decoder=categorical", "encoder.init=normal")


def task_and_batch(composed, data: Path, *overrides: str) -> tuple[AutoregressiveTask, Batch]:
    cfg = composed(
        "train", "experiment=audio/sashimi-sample", "model.d_model=4", "model.n_layers=1", "model.layer.d_state=4",
        f"dataset.path={data}", "dataset.sample_len=64", "loader.batch_size=16", *CATEGORICAL, *overrides,
    )  # fmt: skip
    pl.seed_everything(3, verbose=False)
    datamodule = build.build_datamodule(cfg)
    datamodule.setup("fit")
    task = build.build_task(cfg, build.build_model_config(cfg, datamodule), datamodule)
    return task.eval(), next(iter(datamodule.train_dataloader()))


@pytest.mark.parametrize(("context", "pad"), [(None, None), (10, None), (None, 7), (63, 16)])
def test_context_len_and_pad_len_reach_the_loss(composed, stereo_folder, monkeypatch, context, pad):
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    keys = [f"dataset.{key}={value}" for key, value in (("context_len", context), ("pad_len", pad)) if value]
    task, batch = task_and_batch(composed, stereo_folder, *keys)
    model = task.model
    start = torch.full((len(batch.codes), 1 + (pad or 0), 2), 128)
    with torch.no_grad():
        hidden, _ = model(torch.cat([start, batch.codes[:, :-1]], dim=1))
        log_prob = model.score(hidden[:, (pad or 0) :], batch.codes).log_prob
        expected = -log_prob[:, (context or 0) :].mean()
        loss = task._loss(batch, "val")
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)
    assert float(task.meter("val").compute()["loss"]) == pytest.approx(float(expected), rel=1e-6)


def test_padding_of_short_clips_plays_no_part(composed, tmp_path, monkeypatch):
    from stereo_sashimi.audio.io import write_pcm

    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    rng = np.random.default_rng(5)
    for split in ("train", "valid", "test"):
        (tmp_path / "data" / split).mkdir(parents=True)
        write_pcm(tmp_path / "data" / split / "a.wav", rng.integers(-9000, 9000, (90, 2)).astype(np.int16), 44100)
    task, batch = task_and_batch(composed, tmp_path / "data", "dataset.drop_last=false")
    assert sorted(batch.lengths.tolist()) == [26, 64]
    short = int(batch.lengths.argmin())
    garbage = batch.codes.clone()
    garbage[short, 26:] = torch.randint(256, (38, 2))
    with torch.no_grad():
        loss, other = task._loss(batch, "val"), task._loss(batch._replace(codes=garbage), "val")
        log_prob = task(batch.codes)
    by_hand = -(log_prob[1 - short].sum() + log_prob[short, :26].sum()) / ((64 + 26) * 2)
    assert float(loss) == pytest.approx(float(by_hand), rel=1e-6)
    assert float(other) == pytest.approx(float(loss), rel=1e-6)
