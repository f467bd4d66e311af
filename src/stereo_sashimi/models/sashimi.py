"""Sashimi: the multi-scale backbone of S4 layers (Goel et al. 2022, "It's Raw!"), width in, width out.

Embedding and heads are not here: `language_model.py` puts them around it. The wiring, for `pool = (p1, .., pk)`:

  down   [unet: n_layers x (S4, FF)]  DownPool(p1)  ..  DownPool(pk)     rate falls, width grows by `expand`
  center n_layers x (S4, FF)
  up     UpPool(pk)  n_layers x (S4, FF)  ..  UpPool(p1)  n_layers x (S4, FF)

with skips from each signal on the way down to its mirror on the way up.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from operator import mul
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from stereo_sashimi.nn.block import FeedForward, Residual
from stereo_sashimi.nn.module import StatefulModule
from stereo_sashimi.nn.pooling import DownPool, UpPool
from stereo_sashimi.nn.s4 import S4, S4Config, S4DConfig
from stereo_sashimi.schema import check_count


@dataclass(frozen=True)
class SashimiConfig:
    """Shape of the backbone.

    Args:
        d_model: width of one channel's embedding; the backbone is as wide as the whole embedding.
        n_layers: (S4, FF) pairs per level.
        pool: frames grouped at each level.
        expand: growth of the width a level.
        ff: growth inside feed-forward layers.
        unet: blocks before pooling as well, and skips around every block.
        norm: "layer" or "scalar" in front of blocks.
        pool_weight_norm: weight normalisation of the pools.
        dropout: inside layers, in [0, 1).
        dropres: dropout on residual branches, in [0, 1).
    """

    d_model: int = 64
    n_layers: int = 8
    pool: Sequence[int] = (4, 4)
    expand: int = 2
    ff: int = 2
    unet: bool = False
    norm: str = "layer"
    pool_weight_norm: bool = False
    dropout: float = 0.0
    dropres: float = 0.0
    layer: S4Config = field(default_factory=S4Config, metadata={"classes": (S4Config, S4DConfig)})

    def __post_init__(self) -> None:
        # Lists come from YAML and JSON; a tuple keeps configs equal and hashable.
        object.__setattr__(self, "pool", tuple(self.pool))
        for name in ("d_model", "n_layers", "expand", "ff"):
            check_count(getattr(self, name), f"model.{name}")
        if not all(isinstance(p, int) and not isinstance(p, bool) and p >= 1 for p in self.pool):
            raise ValueError(f"model.pool must hold integers of at least 1; got {list(self.pool)}.")
        if self.norm not in ("layer", "scalar"):
            raise ValueError(f"model.norm must be layer or scalar; got {self.norm!r}.")
        for name in ("dropout", "dropres"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"model.{name} must lie in [0, 1); got {getattr(self, name)}.")

    @property
    def stride(self) -> int:
        """Frames of the longest group: of the product of `pool`."""
        return math.prod(self.pool)

    def build(
        self, width: int | None = None, backend: str = "auto", activation_checkpointing: bool = False
    ) -> "Sashimi":
        """The backbone for an embedding of `width` features (default `d_model`)."""
        return Sashimi(self.d_model if width is None else width, self, backend, activation_checkpointing)


class SashimiState(NamedTuple):
    """What a Sashimi carries between segments.

    Attributes:
        phase: frames seen so far modulo prod(pool), one number for the whole batch, kept on the host.
        layers: one entry a module in the order they run (batch first), None where a module has none.
    """

    phase: int
    layers: tuple[Tensor | None, ...]


class Step(NamedTuple):
    """A module of the backbone and what becomes of its output. See `Sashimi.schedule`.

    Attributes:
        module: a `Residual` block, a `DownPool` or an `UpPool`.
        side: "down", "center" or "up".
        level: 0 runs at the rate of the audio; the center is the last one.
        stride: frames of audio for one run; a pool runs once for each group of frames.
        width: features of the output.
        add: add the signal that was kept last, which is then dropped, to the output.
        keep: keep the output (after `add`) for a later `add`.
    """

    module: StatefulModule
    side: str
    level: int
    stride: int
    width: int
    add: bool = False
    keep: bool = False


class Sashimi(nn.Module):
    """The backbone. Input and output (batch, length, width), any length; see `SashimiConfig`.

    Args:
        backend: how kernels are computed.
        activation_checkpointing: training keeps only the input of each residual block and computes the rest again in
            the backward pass (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost"): one more forward pass
            for a fraction of the memory.

    Neither is saved or changes a result.
    """

    def __init__(
        self, width: int, config: SashimiConfig, backend: str = "auto", activation_checkpointing: bool = False
    ) -> None:
        super().__init__()
        self.width, self.unet, self.stride = width, config.unet, config.stride
        self.activation_checkpointing = activation_checkpointing
        self.has_dropout = config.dropout > 0 or config.dropres > 0

        def blocks(d_model: int) -> list[StatefulModule]:
            pairs: list[StatefulModule] = []
            for _ in range(config.n_layers):
                for layer in (
                    S4(d_model, config.layer, config.dropout, backend),
                    FeedForward(d_model, config.ff, config.dropout),
                ):
                    pairs.append(Residual(layer, d_model, config.norm, config.dropres))
            return pairs

        widths = [width * config.expand**i for i in range(len(config.pool) + 1)]
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for pool, low, high in zip(config.pool, widths[:-1], widths[1:], strict=True):
            before = blocks(low) if config.unet else []
            self.down.append(nn.ModuleList([*before, DownPool(low, high, pool, config.pool_weight_norm)]))
        self.center = nn.ModuleList(blocks(widths[-1]))
        for pool, low, high in zip(config.pool[::-1], widths[-2::-1], widths[:0:-1], strict=True):
            up_pool = UpPool(high, low, pool, config.pool_weight_norm)
            self.up.append(nn.ModuleList([up_pool, *blocks(low)]))
        self.norm = nn.LayerNorm(width)
        self._schedule = tuple(self._steps(widths, list(accumulate(config.pool, mul, initial=1))))

    def schedule(self) -> tuple[Step, ...]:
        """The wiring: all modules in the order they run. The input is the first signal kept; `norm` comes last."""
        return self._schedule

    def _steps(self, widths: Sequence[int], strides: Sequence[int]) -> Iterator[Step]:
        """`widths` and `strides` of the levels."""
        center = len(self.down)
        for level, modules in enumerate(self.down):
            *blocks, pool = _modules(modules)
            for block in blocks:
                yield Step(block, "down", level, strides[level], widths[level], keep=True)
            yield Step(pool, "down", level, strides[level + 1], widths[level + 1], keep=True)
        *blocks, last = _modules(self.center)
        for block in blocks:
            yield Step(block, "center", center, strides[center], widths[center])
        yield Step(last, "center", center, strides[center], widths[center], add=True)
        for level, modules in zip(range(center - 1, -1, -1), self.up, strict=True):
            pool, *blocks, last = _modules(modules)
            yield Step(pool, "up", level, strides[level + 1], widths[level], add=True, keep=not self.unet)
            for block in blocks:
                yield Step(block, "up", level, strides[level], widths[level], add=self.unet)
            yield Step(last, "up", level, strides[level], widths[level], add=True)

    def initial_state(self, batch_size: int) -> SashimiState:
        """The state before the first frame."""
        return SashimiState(0, tuple(step.module.initial_state(batch_size) for step in self.schedule()))

    def forward(
        self, x: Float[Tensor, "batch length width"], state: SashimiState | None = None
    ) -> tuple[Float[Tensor, "batch length width"], SashimiState | None]:
        """`None` in gives `None` out (a whole sequence from the start); a state in gives the next state out."""
        length, steps = x.shape[1], self.schedule()
        before = (None,) * len(steps) if state is None else state.layers
        after: list[Tensor | None] = []
        recompute = self.activation_checkpointing and self.training and torch.is_grad_enabled()
        signals = [x]
        for (module, *_, add, keep), layer in zip(steps, before, strict=True):
            if isinstance(module, UpPool):
                x, layer = module(x, layer, signals[-1].shape[1])
            elif recompute and isinstance(module, Residual):
                # Without dropout there is no generator to put back, which a CUDA graph could not capture.
                x, layer = checkpoint(module, x, layer, use_reentrant=False, preserve_rng_state=self.has_dropout)
            else:
                x, layer = module(x, layer)
            after.append(layer)
            if add:
                x = x + signals.pop()
            if keep:
                signals.append(x)
        y = self.norm(x)
        return y, None if state is None else SashimiState((state.phase + length) % self.stride, tuple(after))


def _modules(level: nn.Module) -> list[StatefulModule]:
    assert isinstance(level, nn.ModuleList)
    return [module for module in level if isinstance(module, StatefulModule)]


def reset_rows(state: SashimiState, initial: SashimiState, rows: Bool[Tensor, "batch"]) -> SashimiState:
    """`state` with the rows that `rows` marks taken from `initial`, the state before the first frame of a track.

    What a reset row had is gone entirely, NaN included. Raises ValueError unless `state` stands at the end of whole
    groups (phase 0): a batch has one phase.
    """
    if state.phase != initial.phase:
        raise ValueError(
            f"a row can begin a track only where all rows are at the end of whole groups: the state has phase "
            f"{state.phase}, not {initial.phase}. Advance it by multiples of the product of model.pool."
        )

    def choose(carried: Tensor | None, fresh: Tensor | None) -> Tensor | None:
        if carried is None or fresh is None:
            return None
        marks = rows.to(carried.device).view(-1, *[1] * (carried.dim() - 1))
        return torch.where(marks, fresh.to(carried.dtype), carried)

    return SashimiState(state.phase, tuple(map(choose, state.layers, initial.layers)))


def finite_rows(state: SashimiState) -> Bool[Tensor, "batch"]:
    """Rows of the batch whose state has neither NaN nor infinity."""
    finite = [layer.isfinite().flatten(1).all(dim=1) for layer in state.layers if layer is not None]
    return torch.stack([rows.to(finite[0].device) for rows in finite]).all(dim=0)
