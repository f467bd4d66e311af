"""Samples per second of the lossless codec, encoding (without verifying) and decoding, on the CPU.

python -m benchmarks codec
python -m benchmarks codec bench.checkpoint=runs/mine bench.segments=1,8,32
python -m benchmarks codec bench.audio=song.wav bench.frames=882000

A sample is one code of one channel. The recording is drawn from the model (a second, repeated), which is what it codes
best, or read from bench.audio, and has bench.frames frames. Decoders choose how many segments they take at once.

bench.checkpoint=pretrained  bench.audio=null  bench.frames=529200  bench.segments=32
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import measure
from benchmarks.configs import refuse_beside
from stereo_sashimi.codec import decode, encode, pcm_files
from stereo_sashimi.codec.coding import DEFAULT_BATCH
from stereo_sashimi.commands.shared.runs import find_checkpoint
from stereo_sashimi.generation.sampling import generate
from stereo_sashimi.models.checkpoint import load
from stereo_sashimi.pretrained import NAME

DRAWN_FRAMES = 44100


@dataclass
class Settings(measure.Settings):
    """The model, the recording, and how many segments are encoded at once."""

    checkpoint: str = NAME
    audio: str | None = None
    frames: int = 529200
    segments: int = DEFAULT_BATCH


def check(words: Sequence[str], settings: Settings) -> None:
    """Raise ValueError, naming the key, for what cannot be measured."""
    refuse_beside(words, ())
    find_checkpoint(settings.checkpoint, "", "bench.checkpoint")
    if settings.frames < 1 or settings.segments < 1:
        raise ValueError("bench.frames and bench.segments must be at least 1.")
    if settings.audio is not None and not Path(settings.audio).is_file():
        raise ValueError(f"bench.audio={settings.audio}: there is no such file.")


def prepare(words: Sequence[str], settings: Settings) -> dict[str, measure.Work]:
    """Encoding and decoding one recording."""
    model = load(find_checkpoint(settings.checkpoint, "", "bench.checkpoint"))
    if settings.audio is None:
        part = generate(model, min(settings.frames, DRAWN_FRAMES) / model.spec.sample_rate)
    else:
        part = pcm_files.read(Path(settings.audio), model.spec).pcm
    pcm = np.tile(part, (-(-settings.frames // len(part)), 1))[: settings.frames]
    # Loops are compiled or loaded here.
    data = encode(model, pcm, lanes=settings.segments, verify=False)
    facts = {"samples": pcm.size, "bits_per_sample": 8 * len(data) / pcm.size}
    return {
        "encode": measure.Work(
            lambda: encode(model, pcm, lanes=settings.segments, verify=False), pcm.size, "samples", facts
        ),
        "decode": measure.Work(lambda: decode(model, data), pcm.size, "samples", facts),
    }
