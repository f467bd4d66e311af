"""`kill -9`: a run killed anywhere and resumed ends as the run that was left alone, to the bit."""

import json
import os
import random
import signal

import pytest
from running import DROPOUT, SIX_STEPS, TINY, assert_same, differences, last_of, saved, start, wait_for_step

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

STEPS = 20
# Dropout makes the random generators count.
OPTIONS = (*SIX_STEPS, DROPOUT)
PARTS = ("state_dict", "optimizer_states", "lr_schedulers", "AudioDataModule", "resume", "loops")
EXPERTS = ("experts=adaptive", "decoder=experts", "experts.orders=[16]", "dataset.warm_up=32")
CARRIED = ("train.carry_state=true", "dataset.drop_last=false", "dataset.context_len=10")


@pytest.fixture(scope="module")
def folders(stereo_folder, tracks_folder):
    """The data of a run with some options: one track, or as many as a state is carried through."""
    return lambda options: tracks_folder if CARRIED[0] in options else stereo_folder


@pytest.fixture(scope="module")
def straight(launch, folders, tmp_path_factory):
    """What a run that nobody disturbs ends with; one for each set of options."""
    cache = {}

    def of(*options):
        if options not in cache:
            cache[options] = tmp_path_factory.mktemp("straight")
            launch(cache[options], folders(options), *OPTIONS, *options, f"trainer.max_steps={STEPS}")
        return cache[options]

    return of


def callbacks(run) -> dict:
    """States of callbacks; where best.ckpt lies is the one thing that is another."""
    states = saved(run)["callbacks"]
    for name, state in states.items():
        if name.startswith("BestCheckpoint"):
            kept = {k: v for k, v in state.items() if "path" not in k and k != "best_k_models"}
            states[name] = kept | {"best": list(state["best_k_models"].values())}
    return states


def cases() -> list:
    """(options, save every so many steps, kill at this step or behind it): one of each kind for CI."""
    rng = random.Random(0)
    # Steps lost and amid saves. The number of workers changes nothing: the straight run has none.
    found = [(more, rng.choice((1, 3, 4)), rng.randint(5, 11))
             for more in ((), ("loader.num_workers=2",)) for _ in range(5)]  # fmt: skip
    found += [
        (("trainer.accumulate_grad_batches=2", "loader.num_workers=2"), 2, 7),
        (CARRIED, 3, 8),
        (CARRIED, 1, 7),
        (EXPERTS, 3, 8),
        ((*CARRIED, *EXPERTS), 3, 8),
        (("callbacks=ema", "callbacks.samples=null", "callbacks.ema.decay=0.9"), 2, 7),
        (("trainer.val_check_interval=4", "trainer.deterministic=true"), 2, 7),
    ]
    return [pytest.param(*case, marks=[] if i in (0, 10, 14) else pytest.mark.long) for i, case in enumerate(found)]


@pytest.mark.parametrize(("options", "every", "step"), cases())
def test_killed_and_resumed_is_left_alone(train, folders, straight, tmp_path, options, every, step):
    killed, resumed = tmp_path / "killed", tmp_path / "resumed"
    # It would run on for long: the kill decides when it ends.
    with start(
        *TINY, *OPTIONS, f"dataset.path={folders(options)}", f"paths.run={killed}",
        f"hydra.run.dir={tmp_path}/hydra", "trainer.max_steps=100000",
        f"callbacks.last.every_n_train_steps={every}", *options, cwd=tmp_path,
    ) as process:  # fmt: skip
        try:
            wait_for_step(process, step)
        finally:
            # To its workers as well; it runs on until that arrives.
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert json.loads((killed / "run.json").read_text())["status"] == "running"
    # The line is printed just before the step is saved.
    assert (step - 1) // every * every <= saved(killed)["global_step"] < STEPS
    train(*OPTIONS, *options, f"trainer.max_steps={STEPS}", f"checkpoint={last_of(killed)}",
          run=resumed, data=folders(options))  # fmt: skip
    whole = straight(*(option for option in options if not option.startswith("loader.")))
    assert_same(whole, resumed, *PARTS)
    assert differences(callbacks(whole), callbacks(resumed)) == []
