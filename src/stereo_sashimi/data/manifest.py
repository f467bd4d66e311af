"""Records of prepared files: what manifest.json says of each, and how a stopped preparation finds them again."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int16

from stereo_sashimi.audio.io import write_whole
from stereo_sashimi.data.corpora import sources as src

SCHEMA_VERSION = 1
JOURNAL = ".journal"

Record = dict[str, Any]


def measure(pcm: Int16[np.ndarray, "frames channels"]) -> Record:
    """Channels, peak (0 to 1) and side energy over mid energy (None where mid is silent), from exact integers.

    Mid is the mean of the channels and side what each differs from it: of left and right, (L - R)^2 / (L + R)^2.
    """
    wide = pcm.astype(np.int64)
    n_channels = wide.shape[1]
    total = wide.sum(axis=1, keepdims=True)
    mid, side = int((total**2).sum()), int(((n_channels * wide - total) ** 2).sum())
    ratio = side / (n_channels * mid) if mid else None
    return {"channels": n_channels, "peak": int(np.abs(wide).max(initial=0)) / 32768, "side_mid_ratio": ratio}


def fingerprint(file: Path) -> Record:
    """Size in bytes and SHA-256 of a file."""
    with open(file, "rb") as opened:
        return {"bytes": os.fstat(opened.fileno()).st_size, "sha256": hashlib.file_digest(opened, "sha256").hexdigest()}


def is_intact(out: Path, record: Record) -> bool:
    """Whether the file of a record is there and unchanged."""
    file = out / record["path"]
    # The size first: it costs nothing.
    if not file.is_file() or file.stat().st_size != record["bytes"]:
        return False
    return fingerprint(file)["sha256"] == record["sha256"]


def earlier_records(out: Path, settings: Record) -> dict[tuple[str, str, str], list[Record]]:
    """Records of the manifest and then of the journal in `out`, by split, source and target."""
    found: dict[tuple[str, str, str], dict[str, Record]] = {}
    for file in [out / "manifest.json", *sorted((out / JOURNAL).rglob("*.json"))]:
        if not file.is_file():
            continue
        try:
            noted = json.loads(file.read_text(encoding="utf-8"))
            for record in noted.get("files", []):
                key = (record["split"], record["source"], record["target"])
                found.setdefault(key, {})[record["path"]] = record
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise src.SourceError(f"{file}: not written by this command ({error!r}); delete {out}.") from None
        for name, value in noted.get("settings", {}).items():
            if value != settings.get(name):
                raise src.SourceError(
                    f"{out}: was made with {name}={value}, this run has {settings.get(name)}. Choose another --out, or "
                    "delete that folder."
                )
    return {key: list(records.values()) for key, records in found.items()}


def write_json(path: Path, content: Record) -> None:
    """Write `content` whole or not at all."""
    write_whole(path, (json.dumps(content, indent=1) + "\n").encode())
