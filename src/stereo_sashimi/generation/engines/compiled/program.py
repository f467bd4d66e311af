"""pack: a frozen model as the arrays that `loops.py` runs on: a plan of operations, all weights, room for one row.

The plan repeats `models/sashimi.py`, one line an operation. A vector in a row's memory is named by where it begins, and
has a multiple of 2 SIMD_WIDTH numbers; those beyond its width stay zero. Where a group of `pool` frames lies side by
side (in front of a DownPool, behind an UpPool), frames come first and channels second, other than in the checkpoint.
"""

from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn

from stereo_sashimi.generation.engines.compiled import layers
from stereo_sashimi.generation.engines.compiled import step as loops
from stereo_sashimi.generation.engines.compiled.pack_head import pack_head
from stereo_sashimi.generation.engines.compiled.packed_weights import Weights, padded
from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.nn.feedforward import FeedForward
from stereo_sashimi.nn.module import StatefulModule
from stereo_sashimi.nn.norm import EPSILON
from stereo_sashimi.nn.pooling import DownPool, UpPool
from stereo_sashimi.nn.residual import Residual
from stereo_sashimi.nn.s4 import S4
from stereo_sashimi.ops.cpu.constants import SIMD_WIDTH


class Slot(NamedTuple):
    """Where a module's state lies in a row, `None` in place of a slot if it has none.

    - `kind`: "ssm" (groups of SIMD_WIDTH channels: s, then the modes), "down" or "up" (`pool` frames of `width`
      numbers, `padded(width)` apart). `stride`: frames of the stream between two of the module's level.
    """

    kind: str
    at: int
    width: int
    modes: int = 0
    pool: int = 1
    stride: int = 1


class Packed(NamedTuple):
    """What `loops.run` takes of a model, and the `slots` of its modules in the order of `Sashimi.schedule`."""

    plan: np.ndarray
    weights: np.ndarray
    epsilons: np.ndarray
    tables: np.ndarray
    embedding: np.ndarray
    head: np.ndarray
    mixers: np.ndarray
    size: int
    slots: tuple[Slot | None, ...]


def pack(model: LanguageModel) -> Packed:
    """The arrays of a frozen model in float32 on the CPU."""
    return _Packer(model).packed


class _Packer:
    def __init__(self, model: LanguageModel) -> None:
        self.weights, self.size = Weights(), 0
        self.plan: list[list[int]] = []
        self.epsilons: list[float] = []
        self.slots: dict[int, Slot] = {}
        backbone, embedding = model.backbone, model.embedding
        hidden = self.room(backbone.width)
        assert hidden == 0, "loops.py and draws.py look for the features at the beginning"
        tables = np.stack([_numbers(table.weight) for table in embedding.tables])
        x = first = self.room(len(tables) * embedding.d_model)
        if isinstance(embedding.mix, nn.Linear):
            x = self.dense(embedding.mix, x, 1)
        signals = [x]
        for step in backbone.schedule():
            module, stride = step.module, step.stride
            if isinstance(module, DownPool):
                x = self.down(module, x, stride // module.pool)
            elif isinstance(module, UpPool):
                x = self.up(module, x, stride // module.pool, step.width)
            else:
                # A block works in place, and what was kept must stay.
                x = self.copy(x, step.width, stride) if x in signals else x
                self.block(module, x, step.width, stride)
            if step.add:
                self.plus(signals.pop(), x, step.width, stride // getattr(module, "pool", 1))
            if step.keep:
                signals.append(x)
        self.norm(backbone.norm, x, hidden, backbone.width, 1)
        head, mixers = pack_head(model, self.weights, self.room)
        self.packed = Packed(
            np.array(self.plan, np.int64),
            self.weights.flat(),
            np.array(self.epsilons, np.float32),
            tables,
            np.array([embedding.merge == "sum", first], np.int64),
            head,
            mixers,
            self.size,
            tuple(self.slots.get(id(step.module)) for step in backbone.schedule()),
        )

    def room(self, width: int) -> int:
        """A new vector."""
        at, self.size = self.size, self.size + padded(width)
        return at

    def operation(self, kind: int, stride: int, x: int, y: int, **columns: int) -> None:
        """A line of the plan."""
        line = [0] * loops.COLUMNS
        line[loops.OP], line[loops.STRIDE], line[loops.X], line[loops.Y] = kind, stride, x, y
        for name, value in columns.items():
            line[getattr(loops, name)] = value
        self.plan.append(line)

    def copy(self, x: int, width: int, stride: int, **columns: int) -> int:
        """A copy of x in a new vector."""
        y = self.room(width)
        self.operation(loops.COPY, stride, x, y, A=padded(width) // SIMD_WIDTH, **columns)
        return y

    def plus(self, x: int, y: int, width: int, stride: int) -> None:
        """y += x."""
        self.operation(loops.PLUS, stride, x, y, A=padded(width) // SIMD_WIDTH)

    def dense(self, linear: Any, x: int, stride: int, y: int | None = None, how: int = layers.WRITE) -> int:
        """A linear map of x to y or a new vector."""
        y = self.room(linear.out_features) if y is None else y
        at = self.weights.dense(_numbers(linear.weight), _numbers(linear.bias))
        groups = padded(linear.out_features) // SIMD_WIDTH
        self.operation(loops.DENSE, stride, x, y, W=at, A=linear.in_features, B=groups, C=how)
        return y

    def norm(self, norm: nn.Module, x: int, y: int, width: int, stride: int) -> None:
        """`nn.LayerNorm` or `ScalarNorm`."""
        one = np.ones(width, np.float32)
        if isinstance(norm, nn.LayerNorm):
            scale, shift, bias, epsilon = _numbers(norm.weight), 0 * one, _numbers(norm.bias), norm.eps
        else:
            m, s = _numbers(norm.m), _numbers(norm.s)
            scale, shift, bias, epsilon = s * one, s * m * one, 0 * one, EPSILON
        if epsilon not in self.epsilons:
            self.epsilons.append(epsilon)
        at = self.weights.vectors(scale, shift, bias, one)
        self.operation(loops.NORM, stride, x, y, W=at, A=width, B=self.epsilons.index(epsilon))

    def block(self, block: StatefulModule, x: int, width: int, stride: int) -> None:
        """x += layer(norm(x))."""
        assert isinstance(block, Residual)
        layer = block.layer
        y = self.room(width)
        self.norm(block.norm, x, y, width, stride)
        if isinstance(layer, FeedForward):
            inner = self.dense(layer.input, y, stride, how=layers.GELU)
            self.dense(layer.output, inner, stride, x, layers.ADD)
            return
        assert isinstance(layer, S4)
        ssm = layer.ssm.discretize()
        at, parts = self.weights.ssm(ssm, _numbers(layer.D))
        modes, groups = ssm.delta.shape[1], -(-width // SIMD_WIDTH)
        state = self.room(groups * SIMD_WIDTH * (1 + 2 * modes))
        self.slots[id(block)] = Slot("ssm", state, width, modes)
        z = self.room(width)
        self.operation(loops.ADVANCE, stride, y, z, W=at, A=groups, B=modes, C=parts, X_STEP=state)
        at = self.weights.gated(_numbers(layer.output.weight), _numbers(layer.output.bias))
        self.operation(loops.GATED, stride, z, x, W=at, A=width, B=groups)

    def down(self, pool: DownPool, x: int, stride: int) -> int:
        """Keep x with the frames that wait; behind the last one of a group, map all of them."""
        step = padded(pool.d_model)
        group = self.room(pool.pool * step)
        self.slots[id(pool)] = Slot("down", group, pool.d_model, pool=pool.pool, stride=stride)
        self.operation(loops.COPY, stride, x, group, A=step // SIMD_WIDTH, Y_STEP=step, POOL=pool.pool)
        weight = _numbers(pool.linear.weight)
        by_frame = weight.reshape(-1, pool.d_model, pool.pool).swapaxes(1, 2)
        by_frame = np.pad(by_frame, ((0, 0), (0, 0), (0, step - pool.d_model)))
        weight = by_frame.reshape(len(weight), -1)
        y = self.room(len(weight))
        at = self.weights.dense(weight, _numbers(pool.linear.bias))
        groups = padded(len(weight)) // SIMD_WIDTH
        self.operation(loops.DENSE, stride * pool.pool, group, y, W=at, A=weight.shape[1], B=groups, C=layers.WRITE)
        return y

    def up(self, pool: UpPool, low: int, stride: int, width: int) -> int:
        """The next frame that waits; behind the last one, make the next group of `low`."""
        step = padded(width)
        pending = self.room(pool.pool * step)
        self.slots[id(pool)] = Slot("up", pending, width, pool=pool.pool, stride=stride)
        x = self.copy(pending, width, stride, X_STEP=step, POOL=pool.pool)

        def by_frame(rows: np.ndarray) -> np.ndarray:
            """(width pool, ..) -> (pool padded, ..)"""
            rows = rows.reshape(width, pool.pool, -1).swapaxes(0, 1)
            return np.pad(rows, ((0, 0), (0, step - width), (0, 0))).reshape(pool.pool * step, -1)

        at = self.weights.dense(by_frame(_numbers(pool.linear.weight)), by_frame(_numbers(pool.linear.bias))[:, 0])
        groups, n_in = pool.pool * step // SIMD_WIDTH, pool.linear.weight.shape[1]
        self.operation(loops.DENSE, stride * pool.pool, low, pending, W=at, A=n_in, B=groups, C=layers.WRITE)
        return x


def _numbers(tensor: Any) -> np.ndarray:
    assert isinstance(tensor, Tensor)
    numbers: np.ndarray = tensor.detach().numpy()
    return numbers
