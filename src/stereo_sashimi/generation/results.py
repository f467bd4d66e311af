"""Scores and sampled audio: `TrackScore`, the bits of a recording; `Block`, some sampled frames; their totals."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from stereo_sashimi.spec import LN2, AudioSpec, bits_per_byte


@dataclass(frozen=True)
class TrackScore:
    """The information in a recording under a model. A sample is one code of one channel; `str` gives one line.

    Attributes:
        channel_nats: -log p of all codes of each channel, in nats.
        frames: Length of the recording, at least 1.
        spec: The model's audio format.
    """

    channel_nats: tuple[float, ...]
    frames: int
    spec: AudioSpec

    @property
    def nats(self) -> float:
        """-log p of the whole recording."""
        return math.fsum(self.channel_nats)

    @property
    def samples(self) -> int:
        """Number of codes, frames times channels."""
        return self.frames * len(self.channel_nats)

    @property
    def bits_per_sample(self) -> float:
        """Bits per sample, pooled over channels."""
        return self.nats / LN2 / self.samples

    @property
    def channel_bits_per_sample(self) -> dict[str, float]:
        """Bits per sample of each channel, by name."""
        names = self.spec.channel_names
        return {n: c / LN2 / self.frames for n, c in zip(names, self.channel_nats, strict=True)}

    @property
    def bpb(self) -> float:
        """Bits per byte of PCM."""
        return bits_per_byte(self.bits_per_sample, self.spec.bits)

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {bits:.3f}" for name, bits in self.channel_bits_per_sample.items())
        each = f" ({parts})" if len(self.channel_nats) > 1 else ""
        return f"{self.bits_per_sample:.3f} bits/sample{each}, {self.bpb:.3f} bits/byte, {self.frames:,} frames"


class Block(NamedTuple):
    """The next frames of every sample of a batch; those of the prompt come first.

    Attributes:
        pcm: int16 (samples, frames, channels).
        nats: -log p of their codes under the model itself, float64 (samples, channels).
        drawn: False for frames of the prompt.
        seconds: Time that drawing them took; 0 for frames of the prompt.
    """

    pcm: np.ndarray
    nats: np.ndarray
    drawn: bool
    seconds: float


class SamplingTotals:
    """Running totals over blocks, at constant memory.

    Attributes:
        frames: Frames drawn so far, of one sample.
        prompt_frames: Frames of the prompt.
    """

    def __init__(self, spec: AudioSpec) -> None:
        self.frames, self.prompt_frames = 0, 0
        self._seconds, self._first = 0.0, (0, 0.0)
        self._spec = spec
        self._nats, self._prompt_nats = np.zeros((1, 1)), np.zeros((1, 1))

    def add(self, block: Block) -> None:
        """Count one block."""
        if block.drawn:
            # float64: float32 would lose bits over millions of frames.
            self._nats = self._nats + block.nats
            self.frames += block.pcm.shape[1]
            self._seconds += block.seconds
            self._first = self._first if self._first[0] else (self.frames, self._seconds)
        else:
            self._prompt_nats = self._prompt_nats + block.nats
            self.prompt_frames += block.pcm.shape[1]

    @property
    def frames_per_s(self) -> float:
        """Speed of each sample; without the first block if there are more, as an engine may compile there."""
        frames, seconds = self._first if self.frames > self._first[0] else (0, 0.0)
        return (self.frames - frames) / (self._seconds - seconds)

    def scores(self) -> list[TrackScore]:
        """Scores of what was drawn, one a sample; none before the first frame."""
        return self._scores(self._nats, self.frames)

    def prompt_scores(self) -> list[TrackScore]:
        """Scores of the prompt, one a sample; none without a prompt."""
        return self._scores(self._prompt_nats, self.prompt_frames)

    def _scores(self, nats: np.ndarray, frames: int) -> list[TrackScore]:
        return [TrackScore(tuple(row), frames, self._spec) for row in nats.tolist()] if frames else []
