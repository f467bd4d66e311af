"""`train.carry_state=true`: runs over whole tracks, cut in two, in two processes, and what is refused."""

import re

import pytest
import torch
from pytorch_lightning.callbacks import Callback
from running import DROPOUT, SIX_STEPS, TINY, TWO, assert_same, differences, finish, last_of, saved

import stereo_sashimi

OPTIONS = (
    *SIX_STEPS, DROPOUT, "train.carry_state=true", "dataset.drop_last=false", "train.train_chunk_size=12",
    "dataset.context_len=10",
)  # fmt: skip
PARTS = ("state_dict", "optimizer_states", "lr_schedulers", "AudioDataModule", "resume", "loops")


class Rows(Callback):
    """What each batch had, and what was carried to the next."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen.append((batch.clips.tolist(), batch.first.tolist(), pl_module.carry.value.clips.tolist()))


FOLDED = ("encoder.merge=none", "decoder.coupling=independent", "model.unet=true")


def check_walk(seen: list) -> None:
    """Rows go on to the next clip of their track, or begin another; five tracks are begun before one comes again."""
    starts, begun = {0, 5, 7, 15, 18}, []
    for (clips, first, carried), before in zip(seen, [None, *seen], strict=False):
        assert carried == clips
        assert first == [clip in starts for clip in clips]
        for row, clip in enumerate(clips):
            assert first[row] or clip == before[0][row] + 1
            begun += [clip] if first[row] else []
    assert len(begun) > 3
    assert len(set(begun[:5])) == len(begun[:5]), "a pass has every track once"


# An epoch is six steps; whole tracks end in any of them.
@pytest.mark.parametrize(
    ("cut", "end", "options"),
    [
        pytest.param(3, 8, (), id="inside"),
        pytest.param(6, 8, FOLDED, id="at an epoch's end, folded", marks=pytest.mark.slow),
        pytest.param(8, 13, ("callbacks=ema", "callbacks.samples=null", "loader.num_workers=2"),
                     id="in the second epoch, averaged weights, workers", marks=pytest.mark.slow),
        pytest.param(3, 8, ("experts=adaptive", "decoder=experts", "experts.orders=[16]", "dataset.warm_up=32",
                            "callbacks=ema", "callbacks.samples=null"), id="experts"),
        pytest.param(3, 6, ("trainer.accumulate_grad_batches=2", "trainer.limit_train_batches=4"),
                     id="accumulated, limited", marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_two_halves_are_the_whole(train, tracks_folder, tmp_path, cut, end, options):
    straight, resumed = Rows(), Rows()
    options = (*OPTIONS, *options)
    train(*options, f"trainer.max_steps={end}", run=tmp_path / "a", data=tracks_folder, watchers=[straight])
    train(*options, f"trainer.max_steps={cut}", run=tmp_path / "b", data=tracks_folder, watchers=[resumed])
    last = last_of(tmp_path / "b")
    train(*options, f"trainer.max_steps={end}", f"checkpoint={last}", run=tmp_path / "c", data=tracks_folder,
          watchers=[resumed])  # fmt: skip
    check_walk(straight.seen)
    assert resumed.seen == straight.seen
    assert_same(tmp_path / "a", tmp_path / "c", *PARTS)
    carried = saved(tmp_path / "c")["resume"]["carried"]
    assert carried[0]["clips"].tolist() == straight.seen[-1][0]
    assert any(bool(layer.any()) for layer in carried[0]["layers"] if layer is not None)
    # What is carried is for training alone: the model is read as ever.
    assert stereo_sashimi.load(tmp_path / "c").spec.n_channels == 2


@pytest.mark.slow
def test_a_run_without_the_carried_state_is_another(train, tracks_folder, tmp_path):
    # The comparison above can fail: the same run, resumed with the carried state of a track's start.
    train(*OPTIONS, "trainer.max_steps=3", run=tmp_path / "a", data=tracks_folder)
    content = saved(tmp_path / "a")
    for layer in content["resume"]["carried"][0]["layers"]:
        if layer is not None:
            layer.zero_()
    (tmp_path / "reset").mkdir()
    torch.save(content, tmp_path / "reset" / "last.ckpt")
    for name, path in (("b", tmp_path / "a" / "checkpoints"), ("c", tmp_path / "reset")):
        train(
            *OPTIONS, "trainer.max_steps=5", f"checkpoint={path / 'last.ckpt'}", run=tmp_path / name, data=tracks_folder
        )
    b, c = saved(tmp_path / "b"), saved(tmp_path / "c")
    assert differences(b["AudioDataModule"], c["AudioDataModule"]) == []
    assert differences(b["state_dict"], c["state_dict"])


class Spoil(Callback):
    """Leaves a NaN in what the first row carries to the third step."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == 2:
            layers = [x if x is None else x.clone() for x in pl_module.carry.value.state.layers]
            next(x for x in layers if x is not None and x.numel())[0] = torch.nan
            state = pl_module.carry.value.state._replace(layers=tuple(layers))
            pl_module.carry.value = pl_module.carry.value._replace(state=state)


def test_a_skipped_step_does_not_spoil_what_follows(train, tracks_folder, tmp_path):
    # With this seed the spoiled row is in the middle of a track.
    options = (*OPTIONS, "train.seed=1", "train.on_nan=skip", "trainer.max_steps=6")
    rows = Rows()
    result = train(*options, data=tracks_folder, watchers=[rows, Spoil()])
    assert not rows.seen[2][1][0], "the row goes on with what was spoiled"
    assert (result["steps"], result["skipped_steps"]) == (6, 1)
    content = saved(tmp_path / "run")
    assert content["resume"]["carried"][0]["intact"].tolist() == [True, True]
    assert all(bool(x.isfinite().all()) for x in content["state_dict"].values())


def test_only_a_checkpoint_that_carries_can_be_resumed_so(train, tracks_folder, tmp_path):
    train(*OPTIONS, "trainer.max_steps=1", run=tmp_path / "carries", data=tracks_folder)
    train(*OPTIONS, "train.carry_state=false", "trainer.max_steps=1", run=tmp_path / "a", data=tracks_folder)
    with pytest.raises(ValueError, match=r"carry_state=True; this run has False\. Match `train\.carry_state`"):
        train(*OPTIONS, "train.carry_state=false", f"checkpoint={last_of(tmp_path / 'carries')}", data=tracks_folder)
    last = last_of(tmp_path / "a")
    with pytest.raises(ValueError, match=r"carry_state=False; this run has True\. Match `train\.carry_state`"):
        train(*OPTIONS, f"checkpoint={last}", data=tracks_folder)
    # As one that was written before there was such a key, which resumes without it.
    content = saved(tmp_path / "a")
    del content["hyper_parameters"]["carry_state"]
    torch.save(content, last)
    with pytest.raises(ValueError, match="carry_state=False; this run has True"):
        train(*OPTIONS, f"checkpoint={last}", data=tracks_folder)
    options = (*OPTIONS, "train.carry_state=false", "trainer.max_steps=2")
    assert train(*options, f"checkpoint={last}", data=tracks_folder)["steps"] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("train.carry_state=3",), r"train\.carry_state must be true or false; got 3"),
        (("trainer.overfit_batches=1",), r"trainer\.overfit_batches=1 puts other batches there.*overfit_batches=0"),
        (("trainer.use_distributed_sampler=true",), r"trainer\.use_distributed_sampler=True .*=false"),
    ],
    ids=["type", "overfit", "sampler"],
)
def test_bad_values(refusal, small, tracks_folder, tmp_path, options, message):
    base = ("experiment=audio/sashimi-sample", *small, *OPTIONS, f"paths.run={tmp_path / 'run'}")
    assert re.search(message, refusal("train", *base, f"dataset.path={tracks_folder}", *options))


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_have_the_rows_of_one(train, tracks_folder, tmp_path):
    def run(name: str, *overrides: str, code: int = 0) -> tuple[str, str]:
        return finish(*TINY, *OPTIONS, f"dataset.path={tracks_folder}", f"paths.run={tmp_path / name}",
                      f"hydra.run.dir={tmp_path}/hydra", *overrides, code=code, cwd=tmp_path)  # fmt: skip

    # As in test_ddp.py: in float64, as sums are taken in another order.
    double = ("model.dropout=0", "trainer.precision=64-true", "trainer.max_steps=6")
    train(*OPTIONS, *double, "loader.batch_size=4", run=tmp_path / "one", data=tracks_folder)
    run("two", *TWO, *double)
    one, pair = saved(tmp_path / "one"), saved(tmp_path / "two")
    torch.testing.assert_close(one["state_dict"], pair["state_dict"], rtol=1e-9, atol=1e-10)
    clips = [carried["clips"].tolist() for carried in pair["resume"]["carried"]]
    assert one["resume"]["carried"][0]["clips"].tolist() == [c for pairs in zip(*clips, strict=True) for c in pairs]
    # Cut in two, with dropout: the same sums in the same order.
    run("whole", *TWO, "trainer.max_steps=6")
    run("half", *TWO, "trainer.max_steps=2")
    last = f"checkpoint={last_of(tmp_path / 'half')}"
    run("rest", *TWO, "trainer.max_steps=6", last)
    assert_same(tmp_path / "whole", tmp_path / "rest", *PARTS)
    _, err = run("other", "loader.batch_size=4", last, code=1)
    assert "world_size=2, this data set has 1" in err
