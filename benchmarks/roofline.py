"""The layers of a training step, forward and backward, against the roof of this machine; keys are those of train.py.

python -m benchmarks roofline experiment=audio/sashimi-dml-musdb18stereo dataset.sample_len=8192
python -m benchmarks roofline experiment=audio/sashimi-musdb18mono backend=krylov,recurrent

Each kind of layer runs alone on inputs of the shape that the step gives it; `calls` says how often a step runs it. The
roof is the larger of operations / (fastest matrix product) and bytes / (fastest copy), both measured in the same
process, and share_of_roof = roof / median time. The least work depends on the model and the batch, not on the backend:

S4                 operations: products of kernel and parameters (d_state x frames multiply-adds a channel), real FFTs
                   at 5/2 n log2 n, products of spectra, and the gate's matrix
other layers       operations: their matrix products, counted by torch.utils.flop_counter
all of them        bytes: inputs and outputs once in each direction; parameters read twice, their gradients written
optimizer          bytes: AdamW reads parameter, gradient and two moments, and writes three of them

Data that fit into a CPU's caches move faster than the copy, so small layers may come out above their share. Layers run
as torch runs them one by one (eager), whatever `compile` says.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from scipy.fft import next_fast_len
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.configs import check as check
from benchmarks.configs import composed
from benchmarks.measure import Settings as Settings
from benchmarks.measure import Work, fastest
from benchmarks.train import Step
from stereo_sashimi.nn import S4
from stereo_sashimi.nn.block import FeedForward
from stereo_sashimi.nn.pooling import DownPool, UpPool

KINDS = (S4, FeedForward, DownPool, UpPool)
EAGER = ("compile=false", "activation_checkpointing=false")
# A product of the forward pass makes two in the backward pass, and each multiply-add is two operations.
PASSES, MULTIPLY_ADD, COMPLEX_PRODUCT = 3, 2, 6
COPIED = {"cpu": 2**28, "cuda": 2**30}
SQUARES = {"cpu": (1024, 2048), "cuda": (4096, 8192)}


def prepare(words: Sequence[str], settings: Settings) -> dict[str, Work]:
    """A piece of work for each kind and shape of layer, the head and the optimizer."""
    step = Step(composed([*words, *EAGER]))
    model = step.task.model
    calls: dict[str, tuple[nn.Module, tuple[Any, ...], int]] = {}

    def note(module: nn.Module, args: tuple[Any, ...]) -> None:
        name = f"{type(module).__name__} {'x'.join(map(str, args[0].shape))}"
        calls[name] = (module, args, calls[name][2] + 1 if name in calls else 1)

    hooks = [m.register_forward_pre_hook(note) for m in model.backbone.modules() if isinstance(m, KINDS)]
    with torch.no_grad():
        step.loss()
    for hook in hooks:
        hook.remove()
    dtype = next(model.parameters()).dtype
    with step.fabric.autocast():
        # What autocast makes matrix products in.
        one = torch.ones(1, 1, device=step.device, dtype=dtype)
        products = (one @ one).dtype
    roof = roofs(step.device, products)

    def work(run: Callable[[], object], count: int, flops: float, moved: float) -> Work:
        least = max(flops / roof[0], moved / roof[1])
        return Work(run, flops / 1e9, "GFLOP", {"calls": count, "GB/call": moved / 1e9}, least)

    works = {}
    for name, (module, args, count) in calls.items():
        x = torch.randn_like(args[0]).requires_grad_()

        def output(module: nn.Module = module, x: Tensor = x, rest: tuple[Any, ...] = args[1:]) -> Tensor:
            return module(x, *rest)[0]

        run = _both_ways(step, output, x, module)
        y = output()
        moved = 2 * (x.nbytes + y.nbytes) * products.itemsize / dtype.itemsize + PASSES * _bytes(module)
        flops = s4_flops(module, tuple(x.shape)) if isinstance(module, S4) else _counted(output)
        works[name] = work(run, count, flops, moved)
    codes = step.batch.codes
    rows, length = len(codes) * model.n_sequences, codes.shape[1]
    features = torch.randn(rows, length, model.backbone.width, device=step.device, dtype=dtype)
    features.requires_grad_()
    weight = torch.full(codes.shape[:2], 1 / codes.numel(), device=step.device, dtype=dtype)
    ranks = step.task.meter("train").needs_rank

    def loss() -> Tensor:
        return model.loss(features, codes, weight, ranks)[0]

    run = _both_ways(step, loss, features, model.head)
    moved = 2 * (features.nbytes + codes.nbytes) + PASSES * _bytes(model.head)
    works["head"] = work(run, 1, _counted(loss), moved)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    works["optimizer"] = work(step.optimise, 1, 0.0, 7 * _bytes(model))
    return works


def s4_flops(layer: S4, shape: tuple[int, ...]) -> float:
    """The least operations of an S4 layer, forward and backward, on an input (batch, length, d_model)."""
    batch, length, d_model = shape
    kernel = PASSES * MULTIPLY_ADD * 2 * layer.ssm.n_modes * d_model * length
    n_fft = next_fast_len(2 * length - 1, real=True)
    # Forward: input, kernel, output. Backward: gradients of output, input, kernel.
    transforms = 5 * n_fft * math.log2(n_fft) / 2 * (4 * batch * d_model + 2 * d_model)
    spectra = PASSES * COMPLEX_PRODUCT * (n_fft // 2 + 1) * batch * d_model
    gate = PASSES * MULTIPLY_ADD * layer.output.weight.numel() * batch * length
    return kernel + transforms + spectra + gate


def _both_ways(step: Step, output: Callable[[], Tensor], x: Tensor, module: nn.Module) -> Callable[[], None]:
    """Forward and backward, with gradients for x and all parameters."""
    wanted = [x, *(p for p in module.parameters() if p.requires_grad)]

    def run() -> None:
        with step.fabric.autocast():
            y = output()
        torch.autograd.grad(y, wanted, torch.ones_like(y), allow_unused=True)

    return run


def _counted(output: Callable[[], Tensor]) -> float:
    with FlopCounterMode(display=False) as counter:
        output().sum().backward()
    return float(counter.get_total_flops())


def _bytes(module: nn.Module) -> int:
    return sum(parameter.nbytes for parameter in module.parameters())


def roofs(device: torch.device, dtype: torch.dtype) -> tuple[float, float]:
    """Operations per second of the fastest matrix product in `dtype`, bytes per second that a copy reads and writes."""
    flops = 0.0
    for side in SQUARES.get(device.type, SQUARES["cpu"]):
        a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        flops = max(flops, MULTIPLY_ADD * side**3 / fastest(partial(torch.mm, a, b, out=torch.empty_like(a))))
    source = torch.zeros(COPIED.get(device.type, COPIED["cpu"]), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return flops, 2 * source.numel() / fastest(partial(target.copy_, source))
