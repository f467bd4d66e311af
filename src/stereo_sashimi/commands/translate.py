"""`stereo-sashimi translate`: print a YAML of the original S4 repository in our keys."""

import sys
from pathlib import Path

from omegaconf import DictConfig

from stereo_sashimi.commands.seed_config import SeedConfigError, translate


def run(cfg: DictConfig) -> None:
    """Print the translation of a file."""
    path = Path(str(cfg.input))
    try:
        sys.stdout.write(translate(path.read_text(encoding="utf-8"), path.stem))
    except SeedConfigError as error:
        raise SeedConfigError(f"{path}: {error}") from error
