"""Slot: where a row keeps the state of a module, and its way to and from the tensors of `SashimiState`."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stereo_sashimi.generation.engines.compiled.program import padded
from stereo_sashimi.ops.cpu.constants import SIMD_WIDTH
from stereo_sashimi.ops.cpu.scan import pack_state, unpack_state


class Slot(NamedTuple):
    """The state of one module, `at` this place of a row. `memory` below is (rows, numbers of a row).

    Attributes:
        kind: "ssm" (groups of SIMD_WIDTH channels: s, then the modes), "down" or "up" (`pool` frames of `width`
            numbers, `padded(width)` apart).
        stride: frames of the stream between two of the module's level.
    """

    kind: str
    at: int
    width: int
    modes: int = 0
    pool: int = 1
    stride: int = 1

    def read(self, memory: np.ndarray, phase: int) -> Tensor:
        """A copy."""
        view = torch.from_numpy(self._view(memory, phase).copy())
        return unpack_state(view, self.width) if self.kind == "ssm" else view

    def write(self, memory: np.ndarray, phase: int, state: Tensor) -> None:
        """The inverse of `read`."""
        parts = pack_state(state, torch.float32) if self.kind == "ssm" else state
        self._view(memory, phase)[...] = parts.numpy()

    def _view(self, memory: np.ndarray, phase: int) -> np.ndarray:
        """The numbers that mean something at this phase, as a view."""
        rows = len(memory)
        if self.kind == "ssm":
            groups, one = -(-self.width // SIMD_WIDTH), SIMD_WIDTH * (1 + 2 * self.modes)
            whole = memory[:, self.at : self.at + groups * one].reshape(rows, groups, one)
            return whole[:, :, SIMD_WIDTH:].reshape(rows, groups, self.modes, 2, SIMD_WIDTH)
        frames = memory[:, self.at : self.at + self.pool * padded(self.width)].reshape(rows, self.pool, -1)
        place = phase // self.stride % self.pool
        # In front of a DownPool the frames that came, behind an UpPool those that are still to go.
        return (frames[:, :place] if self.kind == "down" else frames[:, place:])[..., : self.width]
