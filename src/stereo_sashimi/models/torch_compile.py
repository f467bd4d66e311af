"""torch.compile for training (`compile=true`): each block of the backbone and the DML head's score, as one graph each.

Blocks rather than the whole model: blocks of one level and kind share a graph, so that the time to compile does not
grow with `n_layers`, and activation checkpointing can go on around them. Between them there is nothing to fuse but the
skips. The embedding stays as it is: the compiled gradient of a table is a sum by atomic operations, which is not
deterministic on GPUs. Nothing here is saved: copies, checkpoints and exports of a model know nothing of it.
"""

import time
from collections.abc import Callable
from functools import cache
from typing import ParamSpec, TypeVar

import torch

from stereo_sashimi.models.sashimi import Sashimi
from stereo_sashimi.ops.backend_error import BackendError

P = ParamSpec("P")
T = TypeVar("T")

# Graphs that one function may have: blocks of every level, training and evaluation, a last batch that is smaller.
MAX_GRAPHS = 64


def one_graph(function: Callable[P, T]) -> Callable[P, T]:
    """`function` through torch.compile: static shapes, and an error where it cannot be one graph."""
    return torch.compile(function, fullgraph=True, dynamic=False)


def compile_blocks(backbone: Sashimi) -> None:
    """From now on, calls of the residual blocks and pools of `backbone` run compiled; its copies are not.

    The first call of a new shape compiles. Where a block cannot be one graph of static shapes, it raises.
    """
    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, MAX_GRAPHS)
    # It cuts graphs so that gradients can be sent before the backward pass ends: they are cut at every block already.
    config.optimize_ddp = False
    for step in backbone.schedule():
        step.module.compile(fullgraph=True, dynamic=False)


@cache
def check_compiler(device: torch.device) -> None:
    """Raise BackendError if torch.compile does not run on `device`, after trying it."""
    x = torch.ones(8, device=device)
    # A number that no cache has seen: what was compiled once runs without a compiler.
    shift = time.time_ns() % 10**9 / 10**9
    try:
        y = one_graph(lambda x: torch.sin(x + shift) * x)(x)
    except Exception as error:  # No compiler, no headers, a full disk, no Triton, a GPU that it does not know, ..
        needed = "Triton (CUDA builds of torch for Linux bring it) and a C compiler"
        if device.type == "cpu":
            needed = "a C++ compiler (Debian, Ubuntu: apt install g++; another one: CXX=<compiler> in the environment)"
        reason = next((line for line in str(error).splitlines() if line.strip()), "")
        raise BackendError(
            f"compile=true does not run here ({type(error).__name__}: {reason}). On {device.type} it needs {needed}; "
            "or use compile=false."
        ) from error
    if not torch.allclose(y, torch.sin(x + shift) * x, atol=1e-5):
        raise BackendError(f"compile=true computes wrong numbers here (on {device}); use compile=false.")
