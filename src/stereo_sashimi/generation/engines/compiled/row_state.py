"""The states of a SaShiMi in the compiled engine's memory, to and from the tensors of `SashimiState`."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from stereo_sashimi.generation.engines.compiled.packed_weights import padded
from stereo_sashimi.generation.engines.compiled.program import Slot
from stereo_sashimi.ops.cpu.constants import SIMD_WIDTH


def read_states(memory: np.ndarray, slots: Sequence[Slot | None], phase: int) -> tuple[Tensor | None, ...]:
    """Copies, one entry a module; `memory` is (rows, size)."""
    return tuple(None if slot is None else torch.from_numpy(_read(memory, slot, phase)) for slot in slots)


def write_states(memory: np.ndarray, slots: Sequence[Slot | None], phase: int, states: Sequence[Tensor | None]) -> None:
    """The inverse of `read_states`."""
    for slot, state in zip(slots, states, strict=True):
        if slot is not None and state is not None:
            _view(memory, slot, phase)[...] = _parts(state, slot)


def _read(memory: np.ndarray, slot: Slot, phase: int) -> np.ndarray:
    view = _view(memory, slot, phase)
    if slot.kind != "ssm":
        return view.copy()
    # (row, group, mode, part, lane) -> (row, channel, mode, part)
    parts = view.transpose(0, 1, 4, 2, 3).reshape(len(memory), -1, slot.modes, 2)[:, : slot.width]
    return np.ascontiguousarray(parts).view(np.complex64)[..., 0]


def _view(memory: np.ndarray, slot: Slot, phase: int) -> np.ndarray:
    """The numbers of a slot that mean something at this phase, as a view."""
    rows = len(memory)
    if slot.kind == "ssm":
        groups, one = -(-slot.width // SIMD_WIDTH), SIMD_WIDTH * (1 + 2 * slot.modes)
        whole = memory[:, slot.at : slot.at + groups * one].reshape(rows, groups, one)
        return whole[:, :, SIMD_WIDTH:].reshape(rows, groups, slot.modes, 2, SIMD_WIDTH)
    frames = memory[:, slot.at : slot.at + slot.pool * padded(slot.width)].reshape(rows, slot.pool, -1)
    place = phase // slot.stride % slot.pool
    # In front of a DownPool the frames that came, behind an UpPool those that are still to go.
    return (frames[:, :place] if slot.kind == "down" else frames[:, place:])[..., : slot.width]


def _parts(state: Tensor, slot: Slot) -> np.ndarray:
    if slot.kind != "ssm":
        return state.numpy()
    parts = torch.view_as_real(state).numpy()
    parts = np.pad(parts, ((0, 0), (0, -slot.width % SIMD_WIDTH), (0, 0), (0, 0)))
    return parts.reshape(len(parts), -1, SIMD_WIDTH, slot.modes, 2).transpose(0, 1, 3, 4, 2)
