"""callbacks=early_stopping: a run in two pieces ends at the step at which the run in one piece ends."""

import pytest
from running import SIX_STEPS, assert_same, last_of, saved

pytestmark = pytest.mark.slow
# A validation each six steps of a loss that falls while mode=max: the first one stays the best.
WORDS = (*SIX_STEPS, "callbacks=early_stopping", "callbacks.early_stopping.patience=2", "train.mode=max")


def counted(run) -> tuple[int, int]:
    """Validations without a better number, and the step at which training was ended."""
    states = saved(run)["callbacks"]
    (state,) = (state for name, state in states.items() if name.startswith("EarlyStopping"))
    return state["wait_count"], state["stopped_epoch"]


def test_the_counter_is_resumed(train, tmp_path):
    words = (*WORDS, "callbacks.samples=null", "scheduler.total_steps=40")
    whole = train(*words, "trainer.max_steps=40", run=tmp_path / "whole")
    assert (whole["status"], whole["steps"]) == ("finished", 18)
    assert counted(tmp_path / "whole") == (2, 2)
    train(*words, "trainer.max_steps=13", run=tmp_path / "cut")
    # Its last weights were validated too, which is no part of training.
    assert counted(tmp_path / "cut") == (1, 0)
    again = train(*words, "trainer.max_steps=40", f"checkpoint={last_of(tmp_path / 'cut')}", run=tmp_path / "rest")
    assert again["steps"] == 18
    assert counted(tmp_path / "rest") == (2, 2)
    assert_same(tmp_path / "whole", tmp_path / "rest", "state_dict", "optimizer_states")
