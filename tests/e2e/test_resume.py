"""Checkpoints: a run cut in two is the run in one piece, what does not fit is refused, what is kept is plain."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from running import CATEGORICAL, DROPOUT, SIX_STEPS, Clips, assert_same, differences, last_of, saved

import stereo_sashimi
from stereo_sashimi.commands.train import build
from stereo_sashimi.tasks import AutoregressiveTask

PARTS = ("state_dict", "optimizer_states", "lr_schedulers")
PLATEAU = ("dataset=sample", *CATEGORICAL, "loader.batch_size=2", "train.validate_before=false", "scheduler=plateau",
           "scheduler.patience=0", "train.mode=max", "task.metrics=[bpb]")  # fmt: skip
EMA = (*SIX_STEPS, DROPOUT, "callbacks=ema", "callbacks.samples=null", "callbacks.ema.decay=0.6")
CASES = {
    "inside": (SIX_STEPS, 2, 4),
    "across": (SIX_STEPS, 4, 8),
    "at an epoch's end": (SIX_STEPS, 6, 8),
    "plateau inside": (PLATEAU, 8, 24),
    "plateau at an epoch's end": (PLATEAU, 12, 24),
    "averaged weights inside": (EMA, 4, 8),
    "averaged weights at an epoch's end": (EMA, 6, 8),
}


@pytest.fixture
def plateau(train, small):
    """As `train`, with the plateau scheduler and six steps an epoch; every validation after the first is worse."""
    return partial(train, *PLATEAU, base=small)


@pytest.mark.parametrize("case", [pytest.param(case, marks=[pytest.mark.slow] * (case != "across")) for case in CASES])
def test_two_halves_are_the_whole(train, small, tmp_path, case):
    options, cut, end = CASES[case]
    go = partial(train, *options, **({"base": small} if options is PLATEAU else {}))
    straight, resumed = Clips(), Clips()
    go(f"trainer.max_steps={end}", run=tmp_path / "a", watchers=[straight])
    go(f"trainer.max_steps={cut}", run=tmp_path / "b", watchers=[resumed])
    go(f"trainer.max_steps={end}", f"checkpoint={last_of(tmp_path / 'b')}", run=tmp_path / "c", watchers=[resumed])
    assert resumed.seen == straight.seen
    average = ("current_model_state", "averaging_state") if options is EMA else ()
    assert_same(tmp_path / "a", tmp_path / "c", *PARTS, *average)
    assert saved(tmp_path / "c")["global_step"] == end
    if options is PLATEAU:
        # Four validations of a loss that falls while mode=max: the rate was lowered at each but the first.
        assert saved(tmp_path / "a")["lr_schedulers"][0]["last_epoch"] == 4


@pytest.mark.slow
def test_activation_checkpointing_changes_no_bit_and_may_begin_with_a_resume(train, tmp_path):
    words = ("logger=none", DROPOUT, "model.dropres=0.1", "scheduler.total_steps=4")
    train(*words, "trainer.max_steps=4", run=tmp_path / "whole")
    train(*words, "trainer.max_steps=4", "activation_checkpointing=true", run=tmp_path / "twice")
    assert_same(tmp_path / "whole", tmp_path / "twice", "state_dict", "hyper_parameters")
    train(*words, "trainer.max_steps=2", run=tmp_path / "half")
    last = last_of(tmp_path / "half")
    train(*words, "trainer.max_steps=4", "activation_checkpointing=true", f"checkpoint={last}", run=tmp_path / "rest")
    assert_same(tmp_path / "whole", tmp_path / "rest", "state_dict")


@pytest.mark.slow
@pytest.mark.parametrize("end", ["trainer.max_epochs=1", "trainer.max_steps=4"])
def test_a_run_that_had_ended_goes_on_without_an_empty_epoch(train, tmp_path, end):
    # Six steps an epoch; counters and validations every second epoch are those of the run in one piece.
    options = (*SIX_STEPS, DROPOUT, "trainer.check_val_every_n_epoch=2")
    longer = ("trainer.max_steps=-1", "trainer.max_epochs=2")
    train(*options, *longer, run=tmp_path / "whole")
    train(*options, "trainer.max_steps=-1", end, run=tmp_path / "ended")
    result = train(*options, *longer, f"checkpoint={last_of(tmp_path / 'ended')}", run=tmp_path / "longer")
    assert result["steps"] == 12
    assert last_of(tmp_path / "longer", "best").is_file()
    assert_same(tmp_path / "whole", tmp_path / "longer", *(saved(tmp_path / "whole").keys() - {"callbacks"}))


@pytest.mark.slow
def test_plateau_counts_validations_and_not_epochs(plateau, tmp_path):
    plateau("trainer.max_steps=24", "trainer.check_val_every_n_epoch=2", run=tmp_path / "a")
    assert saved(tmp_path / "a")["lr_schedulers"][0]["last_epoch"] == 2


@pytest.mark.slow
def test_a_resumed_run_has_to_beat_the_best_before_it(plateau, tmp_path):
    # mode=max of a falling loss: the first validation stays the best.
    plateau("trainer.max_steps=12", run=tmp_path / "a")
    result = plateau("trainer.max_steps=18", f"checkpoint={last_of(tmp_path / 'a')}", run=tmp_path / "b")
    best = last_of(tmp_path / "b", "best")
    assert best.read_bytes() == last_of(tmp_path / "a", "best").read_bytes()
    assert Path(result["best"]).resolve() == best.resolve()


@pytest.fixture(scope="module")
def trained(launch, stereo_folder, tmp_path_factory) -> Path:
    """last.ckpt of a stereo run with an 8-bit categorical head, in mid-epoch."""
    run = tmp_path_factory.mktemp("trained")
    launch(run, stereo_folder, *SIX_STEPS, "trainer.max_steps=1")
    return last_of(run)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("dataset.is_stereo=false",), r"spec\.n_channels=2; this run has 1.*Match `dataset`"),
        (("dataset.bits=16",), r"spec\.bits=8; this run has 16.*Match `dataset`"),
        (("model.d_model=8",), r"encoder\.d_model=4; this run has 8\. Match `encoder`"),
        (("model.n_layers=2",), r"model\.n_layers=1; this run has 2.*Match `model`"),
        (("decoder=dml",), r"decoder\.kind='categorical'; this run has 'dml'.*Match `decoder`"),
        (("optimizer.lr=0.1",), r"optimizer\.lr=0\.004; this run has 0\.1\. Match `optimizer`"),
        (("scheduler=none",), r"scheduler.*Match `scheduler`"),
        (("dataset.context_len=3",), r"context_len=None; this run has 3\. Match `dataset`"),
        (("dataset.pad_len=3",), r"pad_len=0; this run has 3\. Match `dataset`"),
        (("loader.batch_size=4",), r"batches of 2 clips .*this run has 4.*\n.*loader\.batch_size"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_what_shapes_model_and_training_must_be_as_it_was(train, tmp_path, trained, options, message):
    with pytest.raises(ValueError, match=message):
        train(*SIX_STEPS, f"checkpoint={trained}", "trainer.max_steps=4", *options)
    assert not list(tmp_path.rglob("*.ckpt"))


def test_the_optimizer_is_part_of_it(trained):
    # The comparison of halves can fail: weights alone do not continue a run.
    moments = torch.load(trained, weights_only=True)["optimizer_states"][0]["state"]
    assert moments
    assert all(float(state["step"]) == 1 for state in moments.values())
    assert any(bool(state["exp_avg"].any()) for state in moments.values())
    assert differences(moments, {**moments, 0: {**moments[0], "step": torch.tensor(2.0)}}) == [".0.step"]


def strings_of(value: object) -> list[str]:
    if isinstance(value, dict):
        return [s for pair in value.items() for item in pair for s in strings_of(item)]
    if isinstance(value, (list, tuple)):
        return [s for item in value for s in strings_of(item)]
    return [value] if isinstance(value, str) else []


@pytest.mark.parametrize("name", ["best", "last"])
def test_a_checkpoint_holds_plain_fields_and_no_code(dml_run, name):
    strings = strings_of(saved(dml_run, name))
    assert "autoregressive" in strings
    assert not [s for s in strings if "_target_" in s or "stereo_sashimi" in s]
    # Hydra's targets of the model are import paths; none may survive anywhere in the file's bytes.
    assert b"_target_" not in last_of(dml_run, name).read_bytes()


def test_what_was_trained_is_what_is_loaded(dml_run, composed, stereo_folder):
    path = last_of(dml_run, "best")
    model = stereo_sashimi.load(path)
    task = AutoregressiveTask.load_from_checkpoint(path, map_location="cpu", weights_only=True).eval()
    codes = torch.randint(model.spec.n_levels, (2, 50, 2), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(model.log_prob(codes), task(codes))
    # The validation that chose this checkpoint, recomputed clip by clip.
    result = json.loads((dml_run / "run.json").read_text())
    cfg = composed("train", "dataset=sample", f"dataset.path={stereo_folder}", "dataset.sample_len=64",
                   "loader.batch_size=3", "train.val_chunk_size=4")  # fmt: skip
    data = build.build_datamodule(cfg)
    data.setup("validate")
    with torch.no_grad():
        nats = torch.cat([-model.log_prob(batch.codes) for batch in data.val_dataloader()])
    assert len(nats) == 4
    assert result["validation_after"]["val/loss"] == pytest.approx(float(nats.double().mean()), rel=1e-5)
    assert result["validation_after"]["val/loss/right"] == pytest.approx(float(nats[..., 1].double().mean()), rel=1e-5)
