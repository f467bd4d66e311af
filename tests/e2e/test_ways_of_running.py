"""`trainer.precision=bf16-mixed` and `activation_checkpointing=true` in whole runs; `compile` is in test_compile.py."""

import pytest
import torch


def saved(run) -> dict:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


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
def test_activation_checkpointing_changes_no_bit_of_a_run(train, tmp_path):
    words = ("logger=none", "model.dropout=0.2", "model.dropres=0.1")
    states = []
    for on in ("false", "true"):
        train(*words, f"activation_checkpointing={on}", run=tmp_path / on)
        states.append(saved(tmp_path / on))
    plain, twice = states
    assert plain["hyper_parameters"] == twice["hyper_parameters"]
    assert plain["state_dict"].keys() == twice["state_dict"].keys()
    assert all(torch.equal(value, twice["state_dict"][name]) for name, value in plain["state_dict"].items())


@pytest.mark.slow
def test_a_run_goes_on_the_other_way(train, tmp_path):
    words = ("logger=none", "model.dropout=0.2", "scheduler.total_steps=4", "callbacks.last.every_n_train_steps=1")
    train(*words, "trainer.max_steps=4", run=tmp_path / "whole")
    train(*words, "trainer.max_steps=2", run=tmp_path / "half")
    last = tmp_path / "half" / "checkpoints" / "last.ckpt"
    train(*words, "trainer.max_steps=4", "activation_checkpointing=true", f"checkpoint={last}", run=tmp_path / "rest")
    whole, rest = saved(tmp_path / "whole")["state_dict"], saved(tmp_path / "rest")["state_dict"]
    assert all(torch.equal(value, rest[name]) for name, value in whole.items())
