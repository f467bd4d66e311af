"""What a training step would take if this machine did nothing but the least work, at the best speed it has shown.

Per room of the step: floor = max(flops / ceiling, bytes / ceiling); the floor of a step is the sum over its rooms. The
least work depends on the model and the batch alone, not on backend, compile or checkpointing, forward and backward:

  kernel          flops: the product K = W V of two-level powers, (h, sqrt L, d_state) and (h, d_state, sqrt L); making
                  the factors is left out. bytes: K and its gradient; the parameters.
  convolution     flops: real FFTs at 5/2 n log2 n and products of spectra. bytes: input, kernel, output and their
                  gradients.
  channel_mixing  flops: matrix products of the backbone, by torch's FlopCounterMode. bytes: what the convolutions give
                  and take, codes, features; the parameters. All between them could stay on the chip.
  head            flops: matrix products. bytes: features, codes, log-probabilities; the parameters. No logits.
  optimiser       bytes: AdamW reads parameter, gradient and two moments, and writes three of them.

Parameters are read in both directions and their gradient is written; of an embedding table only the gradient counts.
Data that fit into a CPU's caches move faster than the ceiling says: very small models may come out above their share.
"""

import math
from collections.abc import Sequence
from itertools import product
from typing import Any, NamedTuple

import torch
from scipy.fft import next_fast_len
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.clock import repeated
from benchmarks.layers import s4_layers, without_convolution
from stereo_sashimi.models.language_model import LanguageModel, LanguageModelConfig

CODE_BYTES = 8  # int64
# One product of the forward pass makes two in the backward pass, and each multiply-add is two operations.
PASSES, MULTIPLY_ADD = 3, 2
COMPLEX_PRODUCT = 6
ADAMW_READS, ADAMW_WRITES = 4, 3

# Large enough to be at full speed: bytes of the tensor that is copied, sides of square matrices.
COPIED = {"cpu": 2**28, "cuda": 2**30}
SQUARES = {"cpu": (1024, 2048), "cuda": (4096, 8192)}
LARGEST_PRODUCT = 2**24  # elements
CEILING_REPEATS = 5


class Work(NamedTuple):
    """Floating-point operations and bytes moved."""

    flops: float
    bytes: float


class Ceilings(NamedTuple):
    """What this machine did at best: bytes a copy reads and writes per second, operations of a product per second."""

    copy_bytes_per_s: float
    flops_per_s: float

    def seconds(self, work: Work) -> float:
        """The least time for `work`."""
        return max(work.flops / self.flops_per_s, work.bytes / self.copy_bytes_per_s)


class Shapes(NamedTuple):
    """Of one step: (rows, length, d_model) that each S4 layer gets, and the flops of all matrix products but theirs."""

    layers: list[tuple[int, int, int]]
    mixing_flops: float


def measure_ceilings(
    device: torch.device, dtypes: Sequence[torch.dtype], head: tuple[int, int, int], repeats: int = CEILING_REPEATS
) -> Ceilings:
    """The best copy and the best matrix product of this process.

    - `dtypes`: those the step computes in; the fastest counts.
    - `head`: (rows, d_model, parameters) of the product that the head makes.
    """
    source = torch.zeros(COPIED.get(device.type, COPIED["cpu"]), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy = min(repeated(lambda: target.copy_(source), device, warmup=1, repeats=repeats))
    copied = 2 * source.numel() / copy
    del source, target
    return Ceilings(copied, fastest_product(device, dtypes, head, repeats))


def fastest_product(
    device: torch.device, dtypes: Sequence[torch.dtype], head: tuple[int, int, int], repeats: int = CEILING_REPEATS
) -> float:
    """Operations per second of the fastest matrix product; arguments as of `measure_ceilings`."""
    rows, d_model, parameters = head
    rows = max(1, min(rows, LARGEST_PRODUCT // parameters))
    shapes = [(side, side, side) for side in SQUARES.get(device.type, SQUARES["cpu"])] + [(rows, d_model, parameters)]
    best = 0.0
    for dtype, (m, k, n) in product(dict.fromkeys(dtypes), shapes):
        a, b = torch.randn(m, k, device=device, dtype=dtype), torch.randn(k, n, device=device, dtype=dtype)
        out = torch.empty(m, n, device=device, dtype=dtype)

        def multiply(a: Tensor = a, b: Tensor = b, out: Tensor = out) -> Tensor:
            return torch.mm(a, b, out=out)

        best = max(best, MULTIPLY_ADD * m * k * n / min(repeated(multiply, device, warmup=1, repeats=repeats)))
    return best


def step_shapes(config: LanguageModelConfig, batch: int, frames: int) -> Shapes:
    """What a step of `batch` clips works on, by a forward and backward pass of tensors that have shapes only."""
    layers: list[tuple[int, int, int]] = []

    def note(layer: nn.Module, args: tuple[Any, ...]) -> None:
        rows, length, d_model = args[0].shape
        layers.append((rows, length, d_model))

    with FakeTensorMode():
        # The backend plays no part: no kernel is computed.
        model = config.build("krylov")
        for layer in s4_layers(model):
            layer.register_forward_pre_hook(note)
        codes = torch.zeros(batch, frames, config.spec.n_channels, dtype=torch.int64)
        with without_convolution(model), FlopCounterMode(display=False) as counter:
            model.hidden_for(codes).sum().backward()
    return Shapes(layers, float(counter.get_total_flops()))


def least_work(model: LanguageModel, shapes: Shapes, batch: int, frames: int, activation_bytes: int) -> dict[str, Work]:
    """The least work of each room of a step; `activation_bytes`: of one number between rooms (2 under bf16-mixed)."""
    weight_bytes = next(model.parameters()).element_size()
    kernel, convolution, exchanged = Work(0, 0), Work(0, 0), 0
    for layer, (rows, length, d_model) in zip(s4_layers(model), shapes.layers, strict=True):
        points, kernel_bytes = rows * length * d_model, d_model * length * weight_bytes
        flops = PASSES * MULTIPLY_ADD * 2 * layer.ssm.n_modes * d_model * length
        kernel = _add(kernel, Work(flops, 2 * kernel_bytes + parameter_bytes(layer.ssm)))
        n_fft = next_fast_len(2 * length - 1, real=True)
        # Forward: input, kernel, output. Backward: gradients of output, input, kernel.
        transforms = real_fft_flops(n_fft) * (4 * rows * d_model + 2 * d_model)
        products = PASSES * COMPLEX_PRODUCT * (n_fft // 2 + 1) * rows * d_model
        convolution = _add(convolution, Work(transforms + products, 2 * (2 * points * activation_bytes + kernel_bytes)))
        exchanged += 2 * points
    features = batch * frames * model.backbone.width * model.n_sequences
    samples = batch * frames * model.spec.n_channels
    ssm_bytes = sum(parameter_bytes(layer.ssm) for layer in s4_layers(model))
    mixing = Work(
        shapes.mixing_flops,
        2 * (exchanged + features) * activation_bytes
        + samples * CODE_BYTES
        + parameter_bytes(model.embedding)
        + parameter_bytes(model.backbone)
        - ssm_bytes,
    )
    head = Work(
        head_flops(model, batch * frames),
        2 * (features * activation_bytes + samples * weight_bytes) + samples * CODE_BYTES + parameter_bytes(model.head),
    )
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    optimiser = Work(0, (ADAMW_READS + ADAMW_WRITES) * trained)
    return {
        "kernel": kernel,
        "convolution": convolution,
        "channel_mixing": mixing,
        "head": head,
        "optimiser": optimiser,
    }


def head_flops(model: LanguageModel, rows: int) -> float:
    """Matrix products of the head for `rows` frames: each map once a frame, a shared one once a channel."""
    weights = sum(module.weight.numel() for module in model.head.modules() if isinstance(module, nn.Linear))
    return float(PASSES * MULTIPLY_ADD * rows * weights * model.n_sequences)


def real_fft_flops(n: int) -> float:
    """Operations of one real FFT of length `n`: half of the usual count for complex ones, 5 n log2 n."""
    return 5 * n * math.log2(n) / 2


def parameter_bytes(module: nn.Module) -> int:
    """Parameters read forward and backward and their gradients written; only gradients of embedding tables."""
    return sum(
        (1 if isinstance(part, nn.Embedding) else PASSES) * p.numel() * p.element_size()
        for part in module.modules()
        for p in part.parameters(recurse=False)
    )


def _add(a: Work, b: Work) -> Work:
    return Work(a.flops + b.flops, a.bytes + b.bytes)
