"""pack: a frozen model as the `Program` that `draw.py` and `step.py` run, one operation after the other.

Where a group of `pool` frames lies side by side (in front of a DownPool, behind an UpPool), frames come first and
channels second, other than in the checkpoint.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn

from stereo_sashimi.experts.plan import N_FEATURES, N_FRAME, N_MIXTURES
from stereo_sashimi.generation.engines.compiled import program as kinds
from stereo_sashimi.generation.engines.compiled.packed_weights import Weights
from stereo_sashimi.generation.engines.compiled.program import (
    OPERATION,
    Bank,
    Operation,
    PackedHead,
    Program,
    padded,
)
from stereo_sashimi.generation.engines.compiled.row_state import Slot
from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.models.sashimi import Sashimi
from stereo_sashimi.nn.block import EPSILON, FeedForward, Residual
from stereo_sashimi.nn.heads.categorical_head import CategoricalHead, FrameMixer
from stereo_sashimi.nn.heads.expert_head import ExpertHead
from stereo_sashimi.nn.heads.logistic_mixture_head import DMLHead
from stereo_sashimi.nn.module import StatefulModule
from stereo_sashimi.nn.pooling import DownPool, UpPool
from stereo_sashimi.nn.s4 import S4
from stereo_sashimi.ops.cpu.constants import SIMD_WIDTH

# Bias of the logits that fill the last vector up: low enough for no mass, high enough that differences stay finite.
NO_CODE = -1e30


class Packed(NamedTuple):
    """A model's program, the numbers of a row, and the `slots` of its modules in the order of `Sashimi.schedule`."""

    program: Program
    row_size: int
    slots: tuple[Slot | None, ...]


def pack(model: LanguageModel) -> Packed:
    """The program of a frozen model in float32 on the CPU."""
    return _Packer(model).packed


class _Packer:
    def __init__(self, model: LanguageModel) -> None:
        self.weights, self.row_size = Weights(), 0
        self.operations: list[Operation] = []
        self.slots: dict[int, Slot] = {}
        backbone, embedding = model.backbone, model.embedding
        hidden = self.vector(backbone.width)
        assert hidden == 0, "the features are at the beginning"
        heard, embedded = self.vector(model.spec.n_channels * (N_FEATURES + 1)), self.row_size
        tables, summed = np.zeros((0, model.spec.n_levels, 1), np.float32), False
        if embedding is not None:
            assert isinstance(backbone, Sashimi)
            tables, summed = np.stack([_numbers(table.weight) for table in embedding.tables]), embedding.merge == "sum"
            x = embedded = self.vector(len(tables) * embedding.d_model)
            if isinstance(embedding.mix, nn.Linear):
                x = self.vector(backbone.width)
                self.operations.append(self.dense(embedding.mix, embedded, x))
            if model.hearing is not None:
                self.operations.append(self.dense(model.hearing, heard, x, finish=kinds.ADD))
            x = self.backbone(model, x)
            self.norm(backbone.norm, x, hidden, backbone.width, 1)
        head = self.head(model)
        # Before the weights are joined: it adds its own.
        bank, operations = self.bank(model, heard), _records(self.operations)
        program = Program(operations, self.weights.flat(), tables, summed, embedded, head, bank)
        self.packed = Packed(program, self.row_size, tuple(self.slots.get(id(s.module)) for s in backbone.schedule()))

    def vector(self, width: int) -> int:
        """Room for a new vector."""
        at, self.row_size = self.row_size, self.row_size + padded(width)
        return at

    def backbone(self, model: LanguageModel, x: int) -> int:
        """The operations of `Sashimi.schedule`; where the output is."""
        signals = [x]
        for step in model.backbone.schedule():
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
                rate = stride // module.pool if isinstance(module, UpPool) else stride
                groups = padded(step.width) // SIMD_WIDTH
                self.operations.append(Operation(kinds.PLUS, rate, signals.pop(), x, groups=groups))
            if step.keep:
                signals.append(x)
        return x

    def copy(self, x: int, width: int, stride: int, **pool: int) -> int:
        """A copy of x in a new vector."""
        y = self.vector(width)
        self.operations.append(Operation(kinds.COPY, stride, x, y, groups=padded(width) // SIMD_WIDTH, **pool))
        return y

    def dense(self, linear: Any, x: int, y: int, stride: int = 1, fill: float = 0.0, **finish: int) -> Operation:
        """A linear map (`nn.Linear`, or weight and bias); outputs that fill up the last vectors are `fill`."""
        weight, bias = (_numbers(linear.weight), _numbers(linear.bias)) if isinstance(linear, nn.Linear) else linear
        at, groups = self.weights.dense(weight, bias, fill), padded(len(weight)) // SIMD_WIDTH
        return Operation(kinds.DENSE, stride, x, y, at, weight.shape[1], groups, **finish)

    def norm(self, norm: nn.Module, x: int, y: int, width: int, stride: int) -> None:
        """`nn.LayerNorm` or `ScalarNorm`."""
        one = np.ones(width, np.float32)
        if isinstance(norm, nn.LayerNorm):
            scale, shift, bias, epsilon = _numbers(norm.weight), 0 * one, _numbers(norm.bias), norm.eps
        else:
            m, s = _numbers(norm.m), _numbers(norm.s)
            scale, shift, bias, epsilon = s * one, s * m * one, 0 * one, EPSILON
        at = self.weights.vectors(scale, shift, bias, one)
        self.operations.append(Operation(kinds.NORM, stride, x, y, at, width, epsilon=epsilon))

    def block(self, block: StatefulModule, x: int, width: int, stride: int) -> None:
        """x += layer(norm(x))."""
        assert isinstance(block, Residual)
        layer, y = block.layer, self.vector(width)
        self.norm(block.norm, x, y, width, stride)
        if isinstance(layer, FeedForward):
            inner = self.vector(layer.input.out_features)
            self.operations.append(self.dense(layer.input, y, inner, stride, finish=kinds.GELU))
            self.operations.append(self.dense(layer.output, inner, x, stride, finish=kinds.ADD))
            return
        assert isinstance(layer, S4)
        ssm = layer.ssm.discretize()
        at, parts = self.weights.ssm(ssm, _numbers(layer.D))
        modes, groups = ssm.delta.shape[1], -(-width // SIMD_WIDTH)
        state, z = self.vector(groups * SIMD_WIDTH * (1 + 2 * modes)), self.vector(width)
        self.slots[id(block)] = Slot("ssm", state, width, modes)
        advance = Operation(kinds.ADVANCE, stride, y, z, at, groups=groups, modes=modes, parts=parts, state=state)
        at = self.weights.gated(_numbers(layer.output.weight), _numbers(layer.output.bias))
        self.operations += [advance, Operation(kinds.GATED, stride, z, x, at, width, groups)]

    def down(self, pool: DownPool, x: int, stride: int) -> int:
        """Keep x with the frames that wait; behind the last one of a group, map all of them."""
        step = padded(pool.d_model)
        group = self.vector(pool.pool * step)
        self.slots[id(pool)] = Slot("down", group, pool.d_model, pool=pool.pool, stride=stride)
        keep = Operation(kinds.COPY, stride, x, group, groups=step // SIMD_WIDTH, pool=pool.pool, y_step=step)
        weight = _numbers(pool.linear.weight)
        weight = weight.reshape(-1, pool.d_model, pool.pool).swapaxes(1, 2)
        weight = np.pad(weight, ((0, 0), (0, 0), (0, step - pool.d_model))).reshape(len(weight), -1)
        y = self.vector(len(weight))
        linear = weight, _numbers(pool.linear.bias)
        self.operations += [keep, self.dense(linear, group, y, stride * pool.pool)]
        return y

    def up(self, pool: UpPool, low: int, stride: int, width: int) -> int:
        """The next frame that waits; behind the last one, make the next group of `low`."""
        step = padded(width)
        pending = self.vector(pool.pool * step)
        self.slots[id(pool)] = Slot("up", pending, width, pool=pool.pool, stride=stride)
        x = self.copy(pending, width, stride, pool=pool.pool, x_step=step)

        def by_frame(rows: np.ndarray) -> np.ndarray:
            """(width pool, ..) -> (pool padded, ..)"""
            rows = rows.reshape(width, pool.pool, -1).swapaxes(0, 1)
            return np.pad(rows, ((0, 0), (0, step - width), (0, 0))).reshape(pool.pool * step, -1)

        linear = by_frame(_numbers(pool.linear.weight)), by_frame(_numbers(pool.linear.bias))[:, 0]
        self.operations.append(self.dense(linear, low, pending, stride * pool.pool))
        return x

    def head(self, model: LanguageModel) -> PackedHead:
        """The head of one sequence."""
        head, width, hidden = model.head, model.backbone.width, 0
        if isinstance(head, ExpertHead):
            return self.expert_head(head)
        coupled = head.n_coupled > 0
        parameters, masses, n_mixtures = self.vector(head.d_output), 0, 0
        coupling, outer, tables = [], [], []
        if isinstance(head, CategoricalHead):
            masses, z, inner = self.vector(head.d_output), self.vector(width), self.vector(width)
            for mixer in head.mixers:
                assert isinstance(mixer, FrameMixer)
                coupling.append(self.dense(mixer.inner, hidden, inner))
                outer.append(self.dense(mixer.outer, inner, z, finish=kinds.ADD))
                tables += [_numbers(table.weight) for table in mixer.tables]
            inputs, fill = [hidden] + [z if coupled else hidden] * (head.n_channels - 1), NO_CODE
        else:
            assert isinstance(head, DMLHead)
            n_mixtures, inner = head.n_mixtures, self.vector(head.n_coupled * head.n_mixtures)
            coupling = [self.dense(coupler, hidden, inner) for coupler in head.couplers]
            inputs, fill = [hidden] * head.n_channels, 0.0
        linear = [self.dense(part, x, parameters, fill=fill) for part, x in zip(head.channels, inputs, strict=True)]
        return PackedHead(
            *(isinstance(head, CategoricalHead), coupled, head.n_levels, n_mixtures, head.n_levels / 2),
            *(parameters, masses),
            *(_records(linear), _records(coupling), _records(outer)),
            np.stack(tables) if tables else np.zeros((0, head.n_levels, width), np.float32),
        )

    def expert_head(self, head: ExpertHead) -> PackedHead:
        """The second maps of its networks; the first ones are in the bank."""
        parameters, self.inner = self.vector(3 * N_MIXTURES), self.vector(_network(head, 0)[0].out_features)
        linear = [self.dense(_network(head, c)[1], self.inner, parameters) for c in range(head.n_channels)]
        none, tables = _records([]), np.zeros((0, head.n_levels, 1), np.float32)
        return PackedHead(
            False, False, head.n_levels, N_MIXTURES, 1.0, parameters, 0, _records(linear), none, none, tables
        )

    def bank(self, model: LanguageModel, heard: int) -> Bank | None:
        """The experts, if there are any."""
        head, experts = model.head, model.experts
        if experts is None:
            return None
        assert isinstance(head, ExpertHead)
        inputs = self.vector(head.d_backbone + N_FEATURES * head.n_channels)
        first = [_network(head, c)[0] for c in range(head.n_channels)]
        inner = _records([self.dense(linear, inputs, self.inner, finish=kinds.GELU) for linear in first])
        said = self.vector(head.n_channels * N_FRAME)
        return Bank(experts.plan, said, heard, inputs, head.d_backbone, inner)


def _network(head: ExpertHead, channel: int) -> tuple[nn.Linear, nn.Linear]:
    first, _, second = head.channels[channel].children()
    assert isinstance(first, nn.Linear)
    assert isinstance(second, nn.Linear)
    return first, second


def _records(operations: Sequence[Operation]) -> np.ndarray:
    return np.array(operations, OPERATION)


def _numbers(tensor: Any) -> np.ndarray:
    assert isinstance(tensor, Tensor)
    numbers: np.ndarray = tensor.detach().numpy()
    return numbers
