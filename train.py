"""Train SaShiMi: `python train.py experiment=audio/sashimi-sample`. See commands/train."""

import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig

from stereo_sashimi.commands.seed_config import refuse_files
from stereo_sashimi.commands.shared.errors import speak
from stereo_sashimi.commands.shared.overrides import check_overrides


@hydra.main(version_base="1.3", config_path="configs", config_name="train")
@speak
def main(cfg: DictConfig) -> float | None:
    """Hand the composed config on; the best validation number goes back to Hydra, for sweeps."""
    from stereo_sashimi.commands.train.sweep import objective
    from stereo_sashimi.commands.train.train_command import run

    return objective(run(cfg))


if __name__ == "__main__":
    speak(check_overrides)(sys.argv[1:])
    speak(refuse_files)(Path(__file__).parent / "configs", sys.argv[1:])
    main()
