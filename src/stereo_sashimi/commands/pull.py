"""Fetch an exported model from the Hugging Face Hub into a folder. The keys are in configs/pull.yaml."""

import os
import secrets
import shutil
from pathlib import Path

from omegaconf import DictConfig

from stereo_sashimi.commands.shared.runs import find_checkpoint, name_of, relative
from stereo_sashimi.models.checkpoint import load
from stereo_sashimi.models.hub import fetch_card
from stereo_sashimi.models.model_files import EXPORTED, HUB


def pull(name: str, out: Path) -> str:
    """Make the folder `out` of `user/name@revision`, whole or not at all; returns what was fetched, with its commit.

    Raises ValueError where `out` is there already, and CheckpointError for what is no exported model.
    """
    if out.exists():
        raise ValueError(f"{out} is there already. Give another folder: out=<folder>.")
    weights = find_checkpoint(HUB + name.removeprefix(HUB), "", "from")
    load(weights)
    card = fetch_card(weights)
    part = out.with_name(f".{out.name}.{secrets.token_hex(8)}.part")
    try:
        part.mkdir(parents=True)
        for path in (*(weights.with_name(file) for file in EXPORTED), *([] if card is None else [card])):
            shutil.copyfile(path, part / path.name)
        os.rename(part, out)
    except OSError as error:
        raise ValueError(f"{out} cannot be made: {error.strerror}. Give a folder that can be written.") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return name_of(weights)


def run(cfg: DictConfig) -> None:
    """Fetch as `cfg` says."""
    out = Path(str(cfg.out))
    fetched = pull(str(cfg["from"]), out)
    print(f"{relative(out)}  from {fetched}  load it with stereo_sashimi.load({relative(out)!r})")
