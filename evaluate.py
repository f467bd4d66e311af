"""Score recordings under a model: `python evaluate.py checkpoint=.. data=..`. See commands/evaluate."""

import sys

import hydra
from omegaconf import DictConfig

from stereo_sashimi.commands.shared.errors import speak
from stereo_sashimi.commands.shared.overrides import check_overrides


@hydra.main(version_base="1.3", config_path="configs", config_name="evaluate")
@speak
def main(cfg: DictConfig) -> None:
    """Hand the composed config on."""
    from stereo_sashimi.commands.evaluate.evaluate_command import run

    run(cfg)


if __name__ == "__main__":
    speak(check_overrides)(sys.argv[1:])
    main()
