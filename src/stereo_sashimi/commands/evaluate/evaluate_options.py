"""The keys of `evaluate.py`, checked one by one: each error names the key or the file, and the remedy."""

import re
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig

from stereo_sashimi.commands.evaluate.recordings import Conversions, in_folder
from stereo_sashimi.commands.shared.runs import EXPORTED, STATUS_FILE, folder_name, run_folder
from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.schema import check_type
from stereo_sashimi.spec import AudioSpec

CARRIED = "carried"


def check(cfg: DictConfig) -> None:
    """Raise ValueError for values that are wrong whatever the model and the data are."""
    for key in ("baselines", "report", "overwrite"):
        check_type(cfg[key], bool, key)
    conversions(cfg)
    excluded(cfg)
    contexts(cfg.segment_frames)
    shard(cfg.shard)
    if cfg.max_seconds is not None:
        check_type(cfg.max_seconds, float, "max_seconds")
    for key in ("checkpoint_independent", "out", "generated"):
        if cfg[key] == "":
            raise ValueError(f"{key} is empty. Give a path, or {key}=null.")
    if cfg.generated is not None:
        in_folder(str(cfg.generated), "generated")


def conversions(cfg: DictConfig) -> Conversions:
    """What may be done to files of another format."""
    return Conversions(**{key.name: check_type(cfg[key.name], bool, key.name) for key in fields(Conversions)})


def excluded(cfg: DictConfig) -> list[str]:
    """The files to leave out."""
    given = cfg.exclude
    return list(check_type(list(given) if isinstance(given, ListConfig) else given, Sequence[str], "exclude"))


def contexts(given: Any) -> dict[str, int | None]:
    """Frames of a segment by the name of the context, None for all; the main one first."""
    values = list(given) if isinstance(given, (list, ListConfig)) else [given]
    found: dict[str, int | None] = {}
    for value in values:
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ValueError(
                f"segment_frames must be an integer of at least 1, null for a state that is carried over the track, or "
                f"a list of these; got {value!r}."
            )
        found[CARRIED if value is None else str(value)] = value
    if len(found) != len(values) or not found:
        raise ValueError(f"segment_frames must hold at least one value, each once; got {values}.")
    return found


def shard(given: Any) -> tuple[int, int]:
    """Which of how many parts, counted from 1."""
    if given is None:
        return 1, 1
    match = re.fullmatch(r"(\d+)/(\d+)", str(given))
    part, of = (int(match[1]), int(match[2])) if match is not None else (0, 0)
    if not 1 <= part <= of:
        raise ValueError(f"shard must be a part of all, from 1/4 to 4/4 with four machines; got {given!r}.")
    return part, of


def check_pair(model: LanguageModel, other: LanguageModel) -> None:
    """Raise ValueError unless the gain of `model` over `other`, with independent channels, means something."""
    if other.spec != model.spec:
        raise ValueError(
            f"checkpoint_independent has the format {other.spec.to_dict()}, checkpoint {model.spec.to_dict()}. Give "
            "two models of the same data."
        )
    if other.config.decoder.coupling != "independent":
        raise ValueError(
            f"checkpoint_independent has decoder.coupling={other.config.decoder.coupling}. Give a model that was "
            "trained with decoder.coupling=independent."
        )


def not_pcm(spec: AudioSpec) -> str | None:
    """Why the model's bits are not those of PCM, or None if they are."""
    reasons = ["mu-law"] if spec.quantization == "mu-law" else []
    reasons += [f"normalize={spec.normalize}"] if spec.normalize != "none" else []
    return " and ".join(reasons) or None


def out_folder(given: Any, checkpoint: Path, runs: str) -> Path:
    """Where the results go."""
    if given is not None:
        return Path(str(given))
    if checkpoint.name not in EXPORTED:
        return run_folder(checkpoint) / "evaluation"
    if (name := folder_name(checkpoint)) is not None:
        return Path(runs) / f"evaluation-{name}"
    folder = checkpoint.resolve().parent
    inside = next((place for place in (folder, folder.parent) if (place / STATUS_FILE).is_file()), None)
    return inside / "evaluation" if inside is not None else Path(runs) / f"evaluation-{folder.name}"
