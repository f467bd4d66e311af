"""Train SaShiMi: `python train.py experiment=audio/sashimi-sample`. The work is in stereo_sashimi.app.train."""

import hydra
from omegaconf import DictConfig

from stereo_sashimi.app.errors import speak


@hydra.main(version_base="1.3", config_path="configs", config_name="train")
@speak
def main(cfg: DictConfig) -> None:
    """Hand the composed config on."""
    from stereo_sashimi.app.train import run

    run(cfg)


if __name__ == "__main__":
    main()
