"""Exported models: a folder of model.safetensors (weights) and config.json (everything else), made to be passed on.

No part of it can name code, and config.json holds the SHA-256 of the weights, so that a damaged, mixed or half-copied
pair is found when it is loaded. The fields of config.json are in docs/python.md.
"""

import hashlib
import json
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import safetensors
import safetensors.torch

from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.models.model_files import EXPORTED, CheckpointError
from stereo_sashimi.models.weights import blank, build, check, collect, describe
from stereo_sashimi.schema import from_plain, to_plain
from stereo_sashimi.version import __version__

FORMAT = "stereo-sashimi model"
FORMAT_VERSION = 1
CONFIG, WEIGHTS = EXPORTED
# Far above any description, and any list of weights: what is larger is not one.
MAX_CONFIG_BYTES = 1 << 20
_MAX_HEADER_BYTES = 1 << 22


@dataclass(frozen=True)
class Training:
    """What is known of how a model was trained; every field may be unknown, None.

    - `steps`: optimizer steps. `validation_bits_per_sample`: pooled over channels, of these very weights.
    - `checkpoint`: name of the file that the weights come from, without folders.
    """

    steps: int | None = None
    validation_bits_per_sample: float | None = None
    checkpoint: str | None = None


@dataclass(frozen=True)
class Header:
    """The fields of config.json. `model`: plain fields of a LanguageModelConfig. `sha256`: of the weights file."""

    format: str
    format_version: int
    package_version: str
    sha256: str
    model: dict[str, Any]
    training: Training = field(default_factory=Training, metadata={"classes": (Training,)})


def save(
    model: LanguageModel, folder: str | Path, *, training: Training | None = None, overwrite: bool = False
) -> Path:
    """Write a model as a folder that `load` takes; returns the folder.

    - `training`: facts for config.json. `overwrite`: replace an exported model that is in the folder.

    The two files appear under their names when both are complete, config.json last. Raises CheckpointError for a
    folder that holds something (without `overwrite`), for weights that do not belong to `model.config` or are neither
    float32 nor float64, and where the folder cannot be written.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder} is a file; give a folder to export to (out=<folder>).")
    parts = [folder / f".{name}.part" for name in (WEIGHTS, CONFIG)]
    if folder.is_dir() and not overwrite and set(folder.iterdir()) - set(parts):
        raise CheckpointError(
            f"{folder} is not empty. Give another folder (out=<folder>), or replace the exported model in it with "
            "overwrite=true."
        )
    if overwrite and (folder / CONFIG).exists():
        # What is no exported model is not ours to replace.
        read_header(folder / CONFIG)
    elif overwrite and (folder / WEIGHTS).exists():
        raise CheckpointError(f"{folder} holds a {WEIGHTS} that is no part of an exported model. Give another folder.")
    weights = collect(model)
    check(model.config, weights, "This model cannot be exported")
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        safetensors.torch.save_file(weights, parts[0], metadata={"format": "pt"})
        header = Header(
            format=FORMAT,
            format_version=FORMAT_VERSION,
            package_version=__version__,
            sha256=_sha256(parts[0]),
            model=model.config.to_plain(),
            training=training or Training(),
        )
        parts[1].write_text(json.dumps(to_plain(header), indent=2, allow_nan=False) + "\n", encoding="utf-8")
        # safetensors makes files for their owner only; this one is as readable as any other.
        parts[0].chmod(stat.S_IMODE(parts[1].stat().st_mode))
        for part, name in zip(parts, (WEIGHTS, CONFIG), strict=True):
            _sync(part)
            os.replace(part, folder / name)
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{folder}: cannot write the model ({error}).") from error
    finally:
        if folder.is_dir():
            for part in parts:
                part.unlink(missing_ok=True)
            if is_new and not any(folder.iterdir()):
                folder.rmdir()
    return folder


def load(path: Path, backend: str) -> LanguageModel:
    """The model of an exported folder, named by one of its two files; see `models.checkpoint.load`.

    Raises CheckpointError for a file that is missing, damaged, edited, not of this format or of a newer one.
    """
    config_path, weights_path = path.with_name(CONFIG), path.with_name(WEIGHTS)
    if path.suffix == ".json":
        config_path = path
    else:
        weights_path = path
    header = read_header(config_path)
    config = describe(header.model, str(config_path))
    if not weights_path.is_file():
        raise CheckpointError(f"{config_path} has no {weights_path.name} beside it. An exported model is both files.")
    if _sha256(weights_path) != header.sha256:
        raise CheckpointError(
            f"{weights_path} is not the file that {config_path} was written with (its SHA-256 differs): damaged, "
            "edited, or of another model. Fetch or export both files again."
        )
    with open(weights_path, "rb") as file:
        # A safetensors file begins with the length of its list of tensors.
        length = int.from_bytes(file.read(8), "little")
    if min(length, weights_path.stat().st_size) > _MAX_HEADER_BYTES:
        raise CheckpointError(f"{weights_path} is no model: its list of weights alone has {length} bytes.")
    try:
        weights = safetensors.torch.load_file(weights_path)
    except Exception as error:  # Wrong headers fail in many ways, from SafetensorError to KeyError.
        raise CheckpointError(f"{weights_path} is damaged or not a safetensors file ({error}).") from error
    return build(config, weights, str(weights_path), backend)


def most_bytes(config: Path) -> int:
    """Bytes that the weights described by a config.json have at most. Raises CheckpointError for another file."""
    described = blank(describe(read_header(config).model, str(config)), str(config))
    # float64, and as much again for the remainders of C (`models/weights.py`).
    return 8 + _MAX_HEADER_BYTES + 16 * sum(tensor.numel() for tensor in described.state_dict().values())


def read_header(path: str | Path) -> Header:
    """The validated content of a config.json. Raises CheckpointError naming the file and the field."""
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"There is no {path}. An exported model is a folder of {CONFIG} and {WEIGHTS}.")
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise CheckpointError(f"{path} is no description of a model: it has {path.stat().st_size} bytes.")
    try:
        data = json.loads(path.read_bytes(), object_pairs_hook=_object, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged or not JSON ({error}).") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} does not describe an exported model of this package: its 'format' must be {FORMAT!r}."
        )
    version = data.get("format_version")
    if isinstance(version, int) and version < 1:
        raise CheckpointError(f"{path} has format_version {version}; versions begin with 1.")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format_version {version}; stereo-sashimi {__version__} reads up to {FORMAT_VERSION}. "
            "Update the package."
        )
    try:
        header: Header = from_plain(data, (Header,), "config")
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid: {error}") from error
    return header


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a field occurs twice")
    return fields


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    # Windows syncs what is open for writing.
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
