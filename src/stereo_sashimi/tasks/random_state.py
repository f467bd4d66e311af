"""The global random generators of a process as plain tensors and numbers: torch (CPU, CUDA), numpy and python."""

import random
from typing import Any

import numpy as np
import torch

# What the generators themselves return; made plain only when a checkpoint is written.
RawState = tuple[torch.Tensor, torch.Tensor | None, tuple[Any, ...], tuple[Any, ...]]


def capture(device: torch.device) -> RawState:
    """The states of torch, of the CUDA `device` of this process if it is one, of numpy and of python."""
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    # Other libraries draw from numpy's global generator.
    state = np.random.get_state()  # noqa: NPY002
    assert isinstance(state, tuple)
    return torch.get_rng_state(), cuda, state, random.getstate()


def restore(state: RawState, device: torch.device) -> None:
    """Set what `capture` returned. A CUDA state is left out on a CPU, and the other way around."""
    cpu, cuda, numpy, python = state
    torch.set_rng_state(cpu)
    if cuda is not None and device.type == "cuda":
        torch.cuda.set_rng_state(cuda, device)
    np.random.set_state(numpy)  # noqa: NPY002
    random.setstate(python)


def to_plain(state: RawState) -> dict[str, Any]:
    """Tensors, numbers and strings only, so that a checkpoint loads with `weights_only=True`."""
    cpu, cuda, (kind, keys, position, has_gauss, gauss), (version, words, python_gauss) = state
    return {
        "torch": cpu,
        "cuda": cuda,
        "numpy": {
            "kind": str(kind),
            "keys": torch.from_numpy(keys.astype(np.int64)),
            "position": int(position),
            "has_gauss": int(has_gauss),
            "gauss": float(gauss),
        },
        "python": {"version": version, "words": torch.tensor(words, dtype=torch.int64), "gauss": python_gauss},
    }


def from_plain(plain: dict[str, Any]) -> RawState:
    """The inverse of `to_plain`."""
    numpy, python = plain["numpy"], plain["python"]
    keys = numpy["keys"].numpy().astype(np.uint32)
    return (
        plain["torch"],
        plain["cuda"],
        (numpy["kind"], keys, numpy["position"], numpy["has_gauss"], numpy["gauss"]),
        (python["version"], tuple(python["words"].tolist()), python["gauss"]),
    )
