"""The keys of `evaluate.py`, checked one by one: each error names the key or the file, and the remedy."""

import hashlib
import re
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig

from stereo_sashimi.audio import io
from stereo_sashimi.audio.files import read
from stereo_sashimi.commands.evaluate.track_scorer import Track
from stereo_sashimi.commands.shared.runs import EXPORTED, STATUS_FILE, run_folder
from stereo_sashimi.data.split import find_audio
from stereo_sashimi.generation.sampling import frames_in
from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.schema import check_type
from stereo_sashimi.spec import AudioSpec

CARRIED = "carried"
# Bad files that one message lists.
MOST_LISTED = 8


def check(cfg: DictConfig) -> None:
    """Raise ValueError for values that are wrong whatever the model and the data are."""
    for key in ("baselines", "report", "overwrite"):
        check_type(cfg[key], bool, key)
    contexts(cfg.segment_frames)
    shard(cfg.shard)
    if cfg.max_seconds is not None:
        check_type(cfg.max_seconds, float, "max_seconds")
    for key in ("checkpoint_independent", "out", "generated"):
        if cfg[key] == "":
            raise ValueError(f"{key} is empty. Give a path, or {key}=null.")
    if cfg.generated is not None:
        in_folder(str(cfg.generated), "generated")


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


def in_folder(name: str, key: str) -> list[Path]:
    """The audio files of a folder; at least one."""
    folder = Path(name)
    if folder.is_file():
        raise ValueError(f"{key}={name} is a file. Give its folder, or for data a list: data=[{name}].")
    if not folder.is_dir():
        raise ValueError(f"There is no folder {name}. Give a folder with audio files: {key}=<folder>.")
    found = find_audio(folder)
    if not found:
        raise ValueError(f"{key}={name} holds no audio files ({', '.join(io.AUDIO_SUFFIXES)}). Give another folder.")
    return found


def files(data: Any) -> dict[str, Path]:
    """The recordings by their names in the results: relative to a folder, or as they were given in a list."""
    if isinstance(data, (list, ListConfig)):
        names = [str(name) for name in data]
        if not names:
            raise ValueError("data is an empty list. Give files, data=[a.wav,b.wav], or a folder.")
        if len(set(names)) != len(names):
            raise ValueError(f"data names {next(n for n in names if names.count(n) > 1)} twice. Name each file once.")
        return {name: Path(name) for name in sorted(names)}
    folder = Path(str(data))
    return dict(sorted((path.relative_to(folder).as_posix(), path) for path in in_folder(str(data), "data")))


def tracks(found: dict[str, Path], spec: AudioSpec, max_seconds: float | None) -> list[Track]:
    """Read every file once, so that all that cannot be scored are told of before the first one is."""
    limit = None if max_seconds is None else frames_in(float(max_seconds), spec, "max_seconds")
    done, bad = [], []
    for name, path in found.items():
        try:
            info = io.probe(path)
            if info.sample_rate != spec.sample_rate:
                # A resampled recording has other bits, so nothing here does that unasked.
                raise ValueError(
                    f"{path} has {info.sample_rate} Hz, the model {spec.sample_rate} Hz. Resample the file first: "
                    f"`ffmpeg -i in.wav -ar {spec.sample_rate} out.wav`."
                )
            frames = info.frames if limit is None else min(info.frames, limit)
            done.append(Track(name, path, frames, hashlib.sha256(read(path, spec, frames).data).hexdigest()))
        except ValueError as error:
            bad.append(str(error))
    if len(bad) == 1:
        raise ValueError(bad[0])
    if bad:
        more = [f"and {len(bad) - MOST_LISTED} more"] if len(bad) > MOST_LISTED else []
        lines = "\n  ".join(bad[:MOST_LISTED] + more)
        raise ValueError(f"{len(bad)} of {len(found)} files cannot be evaluated:\n  {lines}")
    return done


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
    folder = checkpoint.resolve().parent
    inside = next((place for place in (folder, folder.parent) if (place / STATUS_FILE).is_file()), None)
    return inside / "evaluation" if inside is not None else Path(runs) / f"evaluation-{folder.name}"
