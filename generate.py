"""Sample audio from a trained model: `python generate.py checkpoint=.. seconds=..`. See stereo_sashimi.app.generate."""

import hydra
from omegaconf import DictConfig

from stereo_sashimi.app.errors import speak


@hydra.main(version_base="1.3", config_path="configs", config_name="generate")
@speak
def main(cfg: DictConfig) -> None:
    """Hand the composed config on."""
    from stereo_sashimi.app.generate import run

    run(cfg)


if __name__ == "__main__":
    main()
