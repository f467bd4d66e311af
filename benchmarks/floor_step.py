"""What drawing one frame would take if this machine did nothing but the least work, at the best speed it has shown.

The frame is that of a whole batch: its streams share the weights, each has its own state. On average over prod(pool)
frames, as a level below others is due only every so many:

  embedding  bytes: a row a channel and stream.
  ssm        flops: per mode (a conjugate pair) and channel 8 real multiply-adds if A_bar is diagonal, of which 4 for
             A_bar x, 2 for B_bar u, 2 for Re(C x), and 12 with a rank-1 part: 2 for Re(right x), 2 for left times it;
             one for D. bytes: the discretised system (delta, b, c, left, right; D); of every stream the state, read
             and written.
  mixing     flops: matrix-vector products of the backbone. bytes: its weights, norms included.
  head       flops: products for all parameters of the distributions. bytes: the weights; of earlier channels' tables
             a row a stream.

Floor = max(flops / flops_per_s, bytes / read_bytes_per_s) of all of it together, not room by room: no weight depends on
what was drawn, so those of one layer could be read while another one computes. Features, the pools' buffers, norms,
GELU and the draw itself count nothing. Models of some megabytes lie in a CPU's caches, so `read_bytes_per_s` is
measured on as many bytes as a frame touches, by as many threads as torch has.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from operator import mul
from typing import NamedTuple

import torch
from torch import nn

from benchmarks.clock import repeated
from benchmarks.floor import MULTIPLY_ADD, Work, fastest_product
from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.nn import S4
from stereo_sashimi.nn.pooling import DownPool, UpPool
from stereo_sashimi.nn.ssm import FrozenSSM

# Real multiply-adds per mode and channel: the diagonal recurrence, and what a rank-1 part adds.
DIAGONAL, RANK_ONE = 8, 4
STATE_READ_WRITTEN = 2
FLOAT_BYTES = 4
SMALLEST_READ = 2**12
# Bytes that one timed call reads, the same ones again and again.
READ_AT_ONCE = 2**28
READ_REPEATS = 5


class StepCeilings(NamedTuple):
    """What this machine did at best: bytes read per second from a working set of a frame's size, operations."""

    read_bytes_per_s: float
    flops_per_s: float

    def seconds(self, work: Work) -> float:
        """The least time for `work`."""
        return max(work.flops / self.flops_per_s, work.bytes / self.read_bytes_per_s)


def step_work(model: LanguageModel, batch: int) -> dict[str, Work]:
    """The least work of a frame of `batch` streams, by rooms; `model` is frozen (`nn.freeze`)."""
    rows = batch * model.n_sequences
    ssm, mixing = Work(0, 0), Work(0, 0)
    for module, period in _schedule(model):
        for part in module.modules():
            work = _work(part, rows)
            share = Work(work.flops / period, work.bytes / period)
            if isinstance(part, (S4, FrozenSSM)):
                ssm = total([ssm, share])
            else:
                mixing = total([mixing, share])
    return {
        "embedding": total(_work(part, rows) for part in model.embedding.modules()),
        "ssm": ssm,
        "mixing": mixing,
        "head": total(_work(part, rows) for part in model.head.modules()),
    }


def total(works: Iterable[Work]) -> Work:
    """All of it together."""
    flops, moved = 0.0, 0.0
    for work in works:
        flops, moved = flops + work.flops, moved + work.bytes
    return Work(flops, moved)


def measure_step_ceilings(model: LanguageModel, batch: int, touched: float) -> StepCeilings:
    """The best reading of `touched` bytes, and the best matrix product, of this process."""
    weights = next(model.parameters())
    head = (batch * model.n_sequences, model.backbone.width, model.head.d_output)
    reads = fastest_read(weights.device, int(touched))
    return StepCeilings(reads, fastest_product(weights.device, (weights.dtype,), head))


def fastest_read(device: torch.device, n_bytes: int, repeats: int = READ_REPEATS) -> float:
    """Bytes per second at which about `n_bytes` are read over and over, by a sum or a matrix-vector product."""
    numbers = max(n_bytes, SMALLEST_READ) // FLOAT_BYTES
    columns = math.isqrt(numbers)
    matrix = torch.ones(numbers // columns, columns, device=device)
    read = FLOAT_BYTES * matrix.numel()
    times = max(1, READ_AT_ONCE // read)
    calls: list[Callable[[], object]]
    if device.type == "cuda":
        # One kernel: launching one takes longer than such a read.
        again = matrix.view(-1).expand(times, -1)
        calls = [lambda: again.sum(dim=1)]
    else:
        vector = torch.ones(columns)
        calls = [lambda: [matrix.sum() for _ in range(times)], lambda: [matrix @ vector for _ in range(times)]]
    return times * read / min(min(repeated(call, device, warmup=1, repeats=repeats)) for call in calls)


def _work(part: nn.Module, rows: int) -> Work:
    """Of one module without those inside it, for `rows` sequences."""
    if isinstance(part, nn.Embedding):
        return Work(0, rows * part.embedding_dim * part.weight.element_size())
    own = [*part.parameters(recurse=False), *part.buffers(recurse=False)]
    multiply_adds, moved = 0, sum(tensor.nbytes for tensor in own)
    if isinstance(part, nn.Linear):
        multiply_adds = part.weight.numel()
    elif isinstance(part, S4):
        multiply_adds = part.D.numel()
    elif isinstance(part, FrozenSSM):
        system = part.discretize()
        multiply_adds = system.delta.numel() * (DIAGONAL + (0 if system.left is None else RANK_ONE))
        moved += STATE_READ_WRITTEN * rows * system.delta.nbytes
    return Work(MULTIPLY_ADD * rows * multiply_adds, moved)


def _schedule(model: LanguageModel) -> Iterator[tuple[nn.Module, int]]:
    """The modules of the backbone, each with the number of frames after which it runs again."""
    backbone = model.backbone
    periods = list(accumulate(model.config.model.pool, mul, initial=1))
    for level, fast, slow in zip(_levels(backbone.down), periods[:-1], periods[1:], strict=True):
        # A pool runs at the rate of the slower of the two levels that it joins.
        yield from ((module, slow if isinstance(module, DownPool) else fast) for module in level)
    yield from ((module, periods[-1]) for module in backbone.center)
    for level, fast, slow in zip(_levels(backbone.up), periods[-2::-1], periods[:0:-1], strict=True):
        yield from ((module, slow if isinstance(module, UpPool) else fast) for module in level)
    yield backbone.norm, 1


def _levels(side: nn.ModuleList) -> list[nn.ModuleList]:
    return [level for level in side if isinstance(level, nn.ModuleList)]
