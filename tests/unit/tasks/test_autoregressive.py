"""The training task: what it logs and keeps. Its loss is in `test_masks.py`, runs are in `tests/e2e/test_train.py`."""

import pytest
import torch

from stereo_sashimi.data.dataset import Batch
from stereo_sashimi.nn import CategoricalHeadConfig
from stereo_sashimi.schema import to_plain
from stereo_sashimi.tasks import AutoregressiveTask
from stereo_sashimi.tasks.optim import AdamWConfig, CosineWarmupConfig, PlateauConfig
from tiny_config import S4D, tiny_config


def make(bits: int = 8, head=None, **options) -> AutoregressiveTask:
    torch.manual_seed(0)
    config = tiny_config(head=head or CategoricalHeadConfig("autoregressive"), bits=bits, pool=(2,), layer=S4D)
    return AutoregressiveTask(config.to_plain(), to_plain(AdamWConfig()), **options).eval()


def batch_of(lengths: list[int]) -> Batch:
    codes = torch.randint(256, (len(lengths), 20, 2), generator=torch.Generator().manual_seed(1))
    return Batch(codes, torch.tensor(lengths), torch.arange(len(lengths)))


def test_names_of_what_is_logged():
    task = make(metrics=["bpb", "accuracy@3"])
    with torch.no_grad():
        task._loss(batch_of([20]), "test")
    names = {f"{metric}{suffix}" for metric in ("loss", "bits_per_sample", "bpb", "accuracy@3")
             for suffix in ("", "/left", "/right")}  # fmt: skip
    assert set(task.meter("test").compute()) == names


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scheduler": {"kind": "linear"}}, r"scheduler\.kind must be one of plateau, cosine_warmup; got 'linear'"),
        ({"scheduler": {"kind": "plateau", "patiance": 1}}, r"Unknown key scheduler\.patiance.*scheduler\.patience"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_what_a_checkpoint_keeps_rebuilds_the_task():
    task = make(scheduler=to_plain(PlateauConfig(patience=3)), context_len=2, metrics=("bpb",), backend="reference")
    kept = dict(task.hparams)
    assert "backend" not in kept
    assert kept["metrics"] == ["bpb"]
    again = AutoregressiveTask(**kept).eval()
    again.load_state_dict(task.state_dict())
    assert again.scheduler_config == PlateauConfig(patience=3)
    codes = batch_of([20]).codes
    with torch.no_grad():
        torch.testing.assert_close(again(codes), task(codes), rtol=1e-4, atol=1e-4)


def test_optimizer_and_scheduler():
    optimizer = make().configure_optimizers()
    assert isinstance(optimizer, torch.optim.AdamW)
    grouped = sum(p.numel() for group in optimizer.param_groups for p in group["params"])
    assert grouped == sum(p.numel() for p in make().model.parameters())
    plateau = make(scheduler=to_plain(PlateauConfig()), monitor="val/bpb", mode="max").configure_optimizers()
    # The task shows it the monitored number itself, at validation.
    assert not plateau["lr_scheduler"]["reduce_on_plateau"]
    assert plateau["lr_scheduler"]["interval"] == "epoch"
    assert plateau["lr_scheduler"]["scheduler"].mode == "max"
    cosine = make(scheduler=to_plain(CosineWarmupConfig())).configure_optimizers()
    assert cosine["lr_scheduler"]["interval"] == "step"
    # Checkpoints are read with weights_only: nothing but plain values in the scheduler's state.
    state = cosine["lr_scheduler"]["scheduler"].state_dict()
    assert state["lr_lambdas"] == [None] * len(cosine["optimizer"].param_groups)
