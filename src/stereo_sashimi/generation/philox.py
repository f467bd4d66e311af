"""UniformStreams: the random numbers of each stream (Philox). How they choose a code: `distributions/`."""

from collections.abc import Sequence
from numbers import Integral
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor


class RandomState(NamedTuple):
    """The random numbers of some streams: one seed a stream, and the frames drawn since then."""

    seeds: tuple[int, ...]
    position: int


class UniformStreams:
    """Uniform numbers in [0, 1), float64: those of frame i of a stream depend on its seed and on i alone.

    So what a stream draws depends neither on the batch around it, nor on the device, nor on how many frames are taken
    at once, and a stream can continue from two numbers. Philox (Salmon et al. 2011, "Parallel random numbers: as easy
    as 1, 2, 3") with the seed as key and the block's number as counter.

    Args:
        seeds: One a stream, at least 0 and below 2**63.
        n_channels: Channels of a frame.
        n_uniforms: Numbers of each channel.
        position: Frames that were taken before.
    """

    BLOCK_FRAMES = 1024

    def __init__(self, seeds: Sequence[int], n_channels: int, n_uniforms: int, position: int = 0) -> None:
        for seed in seeds:
            if isinstance(seed, bool) or not isinstance(seed, Integral) or not 0 <= seed < 2**63:
                raise ValueError(f"seed must be an integer of at least 0 and below 2**63; got {seed!r}.")
        if not seeds:
            raise ValueError("there must be at least one seed, one for each sample; got none.")
        self.seeds, self.position = tuple(int(seed) for seed in seeds), position
        self._shape = (self.BLOCK_FRAMES, n_channels, n_uniforms)
        self._number, self._block = -1, np.empty((len(self.seeds), *self._shape))

    def take(self, n_frames: int) -> Float64[Tensor, "batch frames channels n_uniforms"]:
        """The numbers of the next `n_frames` frames of every stream."""
        parts = []
        while n_frames > 0:
            number, first = divmod(self.position, self.BLOCK_FRAMES)
            part = self._random_block(number)[:, first : first + n_frames].copy()
            parts.append(part)
            n_frames -= part.shape[1]
            self.position += part.shape[1]
        return torch.from_numpy(parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1))

    def state(self) -> RandomState:
        """Where the next frame's numbers begin."""
        return RandomState(self.seeds, self.position)

    def _random_block(self, number: int) -> np.ndarray:
        if number != self._number:
            count = int(np.prod(self._shape))
            for row, seed in enumerate(self.seeds):
                raw = np.random.Philox(key=seed, counter=[0, number, 0, 0]).random_raw(count)
                self._block[row] = ((raw >> np.uint64(11)) * 2.0**-53).reshape(self._shape)
            self._number = number
        return self._block
