"""Slot: where a row keeps the state of a module, and its way to and from the tensors of `SashimiState`."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stereo_sashimi.generation.engines.compiled.program import padded
from stereo_sashimi.ops.cpu.constants import SIMD_WIDTH


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
        view = self._view(memory, phase)
        if self.kind != "ssm":
            return torch.from_numpy(view.copy())
        # (row, group, mode, part, channel of the group) -> (row, channel, mode, part)
        parts = view.transpose(0, 1, 4, 2, 3).reshape(len(memory), -1, self.modes, 2)[:, : self.width]
        return torch.from_numpy(np.ascontiguousarray(parts).view(np.complex64)[..., 0])

    def write(self, memory: np.ndarray, phase: int, state: Tensor) -> None:
        """The inverse of `read`."""
        if self.kind != "ssm":
            parts = state.numpy()
        else:
            parts = torch.view_as_real(state).numpy()
            parts = np.pad(parts, ((0, 0), (0, -self.width % SIMD_WIDTH), (0, 0), (0, 0)))
            parts = parts.reshape(len(parts), -1, SIMD_WIDTH, self.modes, 2).transpose(0, 1, 3, 4, 2)
        self._view(memory, phase)[...] = parts

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
