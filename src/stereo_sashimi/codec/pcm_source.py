"""Recordings that are coded: what is asked of one, and one in memory; files are in `pcm_files.py`."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np


class PcmSource(Protocol):
    """A recording that can be read in parts."""

    @property
    def kind(self) -> str:
        """One of `container.KINDS`."""

    @property
    def sample_rate(self) -> int:
        """Frames a second."""

    @property
    def n_channels(self) -> int:
        """Channels."""

    @property
    def bits(self) -> int:
        """8, 16 or 24."""

    @property
    def frames(self) -> int:
        """Frames."""

    @property
    def envelope(self) -> bytes:
        """What else is to be kept."""

    def read(self, first: int, count: int) -> np.ndarray:
        """int32 (count, channels): samples from -2**(bits - 1) on."""


@dataclass(frozen=True)
class PcmArray:
    """A recording in memory."""

    pcm: np.ndarray
    sample_rate: int
    bits: int
    envelope: bytes = b""
    kind: str = "pcm"

    @property
    def n_channels(self) -> int:
        """Channels."""
        return self.pcm.shape[1]

    @property
    def frames(self) -> int:
        """Frames."""
        return len(self.pcm)

    def read(self, first: int, count: int) -> np.ndarray:
        """As `PcmSource`."""
        part = self.pcm[first : first + count].astype(np.int32)
        return part >> 8 if self.bits == 8 else part
