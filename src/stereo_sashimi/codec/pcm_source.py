"""Recordings that are coded: what is asked of one, and one in memory; files are in `pcm_files.py`."""

from typing import Protocol

import numpy as np


class PcmSource(Protocol):
    """A recording that can be read in parts.

    - `kind`: one of `container.KINDS`. `bits`: 8, 16 or 24. `envelope`: what else is to be kept.
    """

    kind: str
    sample_rate: int
    n_channels: int
    bits: int
    frames: int
    envelope: bytes

    def read(self, first: int, count: int) -> np.ndarray:
        """int32 (count, channels): samples from -2**(bits - 1) on."""


class PcmArray:
    """A recording in memory."""

    def __init__(self, pcm: np.ndarray, sample_rate: int, bits: int, envelope: bytes = b"") -> None:
        self.kind, self._pcm = "pcm", pcm
        self.frames, self.n_channels = pcm.shape
        self.sample_rate, self.bits, self.envelope = sample_rate, bits, envelope

    def read(self, first: int, count: int) -> np.ndarray:
        """As `PcmSource`."""
        part = self._pcm[first : first + count].astype(np.int32)
        return part >> 8 if self.bits == 8 else part
