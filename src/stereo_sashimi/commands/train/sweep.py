"""Several runs from one command (`python train.py -m ..`): what they compare, what they must not do. See
`configs/sweep/` and docs/scale.md.
"""

from typing import Any

import pytorch_lightning as pl

from stereo_sashimi.commands.shared.errors import sweeping
from stereo_sashimi.tasks.lightning_internals import starts_this_command


def check_sweep(trainer: pl.Trainer) -> None:
    """Raise ValueError for a trainer that would start processes of its own inside a sweep.

    Lightning starts them with this command line, so that each would run the whole sweep again.
    """
    if sweeping() and starts_this_command(trainer):
        raise ValueError(
            f"a sweep (-m) runs each training in one process; this trainer asks for {trainer.world_size}. "
            "Set trainer.devices=1 trainer.strategy=auto, or start the trainings one by one."
        )


def objective(result: dict[str, Any]) -> float | None:
    """What a run hands to the sweeper: the best validated `train.monitor` (`best_score` of run.json).

    None for a run that validated nothing; in a sweep that raises ValueError.
    """
    score: float | None = result["best_score"]
    if score is None and sweeping():
        raise ValueError(
            f"{result['run']} has no finite validation number, so the sweep has nothing to compare. Let every run "
            "reach a validation: more trainer.max_steps or trainer.max_epochs, or trainer.val_check_interval=<steps>."
        )
    return score
