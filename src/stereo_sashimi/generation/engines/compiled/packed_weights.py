"""Weights: all weights of a model in one flat float32 array, in the order in which `step.py` reads them."""

import mmap

import numpy as np
import torch

from stereo_sashimi.generation.engines.compiled.program import padded
from stereo_sashimi.ops.cpu.constants import SIMD_WIDTH
from stereo_sashimi.ops.cpu.scan import pack
from stereo_sashimi.ops.discretize import Discrete


class Weights:
    """Each method appends weights and returns where they begin."""

    def __init__(self) -> None:
        self._parts: list[np.ndarray] = []
        self._size = 0

    def flat(self) -> np.ndarray:
        """Everything that was appended."""
        # A mapping of its own begins with a page, so vectors of SIMD_WIDTH numbers never straddle a cache line.
        mapping = mmap.mmap(-1, 4 * self._size)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            # Every frame walks through all of it: with small pages the processor would look up thousands.
            mapping.madvise(mmap.MADV_HUGEPAGE)
        weights = np.frombuffer(mapping, np.float32)
        np.concatenate(self._parts, out=weights)
        return weights

    def vectors(self, *vectors: np.ndarray) -> int:
        """Vectors of equal width, each filled up with zeros to whole vectors of SIMD_WIDTH."""
        pad = -len(vectors[0]) % SIMD_WIDTH
        return self._append(np.concatenate([np.pad(v, (0, pad)) for v in vectors]))

    def dense(self, weight: np.ndarray, bias: np.ndarray, fill: float = 0.0) -> int:
        """A linear map (out, in); outputs that fill up the last vectors have the bias `fill`."""
        extra = padded(len(weight)) - len(weight)
        rows = np.concatenate([bias[:, None], weight], axis=1)
        rows = np.pad(rows, ((0, extra), (0, 0)))
        if extra:
            rows[-extra:, 0] = fill
        return self._tiles(rows.reshape(-1, SIMD_WIDTH, rows.shape[1]), 4)

    def gated(self, weight: np.ndarray, bias: np.ndarray) -> int:
        """A linear map whose first half of outputs is gated by the second: vectors of both in turn."""
        rows = np.concatenate([bias[:, None], weight], axis=1)
        half, inputs = len(rows) // 2, rows.shape[1]
        both = np.pad(rows.reshape(2, half, inputs), ((0, 0), (0, -half % SIMD_WIDTH), (0, 0)))
        groups = both.reshape(2, -1, SIMD_WIDTH, inputs)
        at = self._size
        for g in range(0, groups.shape[1], 2):
            tile = groups[:, g : g + 2].reshape(-1, SIMD_WIDTH, inputs)
            self._tiles(tile, len(tile))
        return at

    def ssm(self, ssm: Discrete, skip: np.ndarray) -> tuple[int, int]:
        """D and a discretised state space model; also the number of its parts (`step.py`)."""
        doubled = ssm._replace(c=2 * ssm.c, right=None if ssm.right is None else 2 * ssm.right)
        packed = pack(doubled, torch.float32)
        at = self.vectors(skip)
        self._append(packed.flatten().numpy())
        return at, packed.shape[1] // (SIMD_WIDTH * ssm.delta.shape[1])

    def _tiles(self, groups: np.ndarray, width: int) -> int:
        """(group, output, input) in tiles of `width` groups, inputs outside."""
        at = self._size
        for g in range(0, len(groups), width):
            tile = groups[g : g + width]
            self._append(tile.transpose(2, 0, 1).ravel())
        return at

    def _append(self, values: np.ndarray) -> int:
        at, self._size = self._size, self._size + values.size
        self._parts.append(np.ascontiguousarray(values, np.float32))
        return at
