"""Frames per second of the lossless codec, encoding (without verifying) and decoding, on the CPU.

python -m benchmarks codec
python -m benchmarks codec bench.checkpoint=fast-1,default-1,best-1
python -m benchmarks codec bench.checkpoint=runs/mine bench.lanes=1,8,32
python -m benchmarks codec bench.audio=song.wav bench.frames=882000

The recording is drawn from the model (a second, repeated), which is what it codes best, or read from bench.audio (16
bits), and has bench.frames frames. Decoders choose how many segments they take at once.

bench.checkpoint=default-1  bench.audio=null  bench.frames=1058400  bench.lanes=null
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import measure
from benchmarks.configs import refuse_beside
from stereo_sashimi.codec import decode, encode, pcm_files
from stereo_sashimi.commands.shared.runs import find_checkpoint
from stereo_sashimi.generation.sampling import generate
from stereo_sashimi.models.checkpoint import load
from stereo_sashimi.pretrained import PROFILES

DRAWN_FRAMES = 44100


@dataclass
class Settings(measure.Settings):
    """The model, the recording, and how many segments are encoded at once."""

    checkpoint: str = PROFILES["default"]
    audio: str | None = None
    frames: int = 1058400
    lanes: int | None = None


def check(words: Sequence[str], settings: Settings) -> None:
    """Raise ValueError, naming the key, for what cannot be measured."""
    refuse_beside(words, ())
    find_checkpoint(settings.checkpoint, "", "bench.checkpoint")
    if settings.frames < 1 or (settings.lanes is not None and settings.lanes < 1):
        raise ValueError("bench.frames and bench.lanes must be at least 1.")
    if settings.audio is not None and not Path(settings.audio).is_file():
        raise ValueError(f"bench.audio={settings.audio}: there is no such file.")


def prepare(words: Sequence[str], settings: Settings) -> dict[str, measure.Work]:
    """Encoding and decoding one recording."""
    model = load(find_checkpoint(settings.checkpoint, "", "bench.checkpoint"))
    if settings.audio is None:
        part = generate(model, min(settings.frames, DRAWN_FRAMES) / model.spec.sample_rate)
    else:
        with pcm_files.open_pcm(Path(settings.audio)) as file:
            part = file.read(0, min(file.frames, settings.frames)).astype(np.int16)
    pcm = np.tile(part, (-(-settings.frames // len(part)), 1))[: settings.frames]
    # Loops are compiled or loaded here.
    data = encode(model, pcm, lanes=settings.lanes, verify=False)
    facts = {"samples": pcm.size, "bits_per_sample": 8 * len(data) / pcm.size}
    return {
        "encode": measure.Work(
            lambda: encode(model, pcm, lanes=settings.lanes, verify=False), len(pcm), "frames", facts
        ),
        "decode": measure.Work(lambda: decode(model, data), len(pcm), "frames", facts),
    }
