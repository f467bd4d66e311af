"""The rooms of a training step, each run alone, forward and backward, on the shapes that the step gives it.

kernel          of every S4 layer what depends on its parameters alone: discretisation and convolution kernel
convolution     the rest of every S4 layer's recurrence, on random inputs: convolution by FFT, or stepping through
                the frames, where the backend does that and needs no kernel
channel_mixing  embedding and backbone with S4 layers that pass their input through: linears, GLU, GELU, norms, pools
head            the task's loss and metrics from random features
optimiser       clipping and the step of the optimizer, from random gradients

What the step takes beyond their sum is its rest: adding up gradients, traffic between the rooms, forward passes that
activation checkpointing repeats. It is below 0 where rooms are slower alone than together.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from statistics import median
from typing import Any, TypeVar

import torch
from torch import Tensor

from benchmarks.clock import repeated
from benchmarks.floor import Shapes
from benchmarks.layers import convolved, is_stepped, prepared, s4_layers, without_convolution
from benchmarks.step import Step
from stereo_sashimi.models.torch_compile import one_graph
from stereo_sashimi.ops.discretize import Discrete

T = TypeVar("T")


def measure_rooms(step: Step, shapes: Shapes, *, warmup: int, repeats: int) -> dict[str, float]:
    """Median seconds of each room."""

    def seconds(work: Callable[[], object]) -> float:
        return median(repeated(work, step.device, warmup=warmup, repeats=repeats))

    kernel, convolution = seconds(_kernels(step, shapes)), seconds(_convolutions(step, shapes))
    with _given_features(step) as features:
        head = seconds(_head(step, features))
    # Behind the head, which would be compiled once more.
    with _retraced(step), without_convolution(step.task.model):
        mixing = seconds(_mixing(step))
    for parameter in step.task.model.parameters():
        parameter.grad = torch.randn_like(parameter) if parameter.requires_grad else None
    optimiser = seconds(step.optimise)
    step.clear()
    return {
        "kernel": kernel,
        "convolution": convolution,
        "channel_mixing": mixing,
        "head": head,
        "optimiser": optimiser,
    }


def _kernels(step: Step, shapes: Shapes) -> Callable[[], None]:
    compute = _as_in(step, prepared)
    layers = s4_layers(step.task.model)
    work = []
    for layer, (rows, length, d_model) in zip(layers, shapes.layers, strict=True):
        stepped = is_stepped(layer, torch.empty(rows, length, d_model, device=step.device, dtype=step.weight_dtype))
        results = prepared(layer, length, stepped)
        gradients = [torch.randn_like(result) for result in results]
        parameters = [p for p in layer.ssm.parameters() if p.requires_grad]
        work.append((layer, length, stepped, parameters, gradients))
    del results

    def run() -> None:
        for layer, length, stepped, parameters, gradients in work:
            torch.autograd.grad(compute(layer, length, stepped), parameters, gradients, allow_unused=True)

    return run


def _convolutions(step: Step, shapes: Shapes) -> Callable[[], None]:
    compute = _as_in(step, convolved)
    layers = s4_layers(step.task.model)
    # Layers of one size share their operands.
    operands: dict[tuple[int, int, int], tuple[Any, ...]] = {}
    for layer, shape in zip(layers, shapes.layers, strict=True):
        if shape in operands:
            continue
        rows, length, d_model = shape
        inputs, gradient = _random(step, *shape).requires_grad_(), _random(step, *shape)
        kernel = _random(step, d_model, length).requires_grad_()
        fields = layer.ssm.discretize()
        leaves: list[Any] = [None if field is None else field.detach().requires_grad_() for field in fields]
        state = layer.initial_state(rows) if step.carries else None
        wanted = [inputs, kernel, *(leaf for leaf in leaves if leaf is not None)]
        operands[shape] = (Discrete(*leaves), kernel, inputs, state, is_stepped(layer, inputs)), wanted, gradient

    def run() -> None:
        for layer, shape in zip(layers, shapes.layers, strict=True):
            arguments, wanted, gradient = operands[shape]
            torch.autograd.grad(compute(layer, *arguments), wanted, gradient, allow_unused=True)

    return run


def _mixing(step: Step) -> Callable[[], None]:
    with torch.no_grad():
        gradient = torch.randn_like(step.features())

    def run() -> None:
        step.features().backward(gradient)
        step.clear()

    return run


def _head(step: Step, features: Tensor) -> Callable[[], None]:
    def run() -> None:
        step.backward(step.loss())
        features.grad = None
        step.clear()

    return run


@contextmanager
def _given_features(step: Step) -> Iterator[Tensor]:
    """Inside, the task asks no backbone for features: it gets random ones, which want a gradient."""
    model = step.task.model
    batch, frames = step.batch.codes.shape[:2]
    features = _random(step, batch * model.n_sequences, frames, model.backbone.width).requires_grad_()
    # Found before the method of the class.
    step.task.__dict__["_hidden"] = lambda batch, split: features
    try:
        yield features
    finally:
        del step.task.__dict__["_hidden"]


@contextmanager
def _retraced(step: Step) -> Iterator[None]:
    """What was compiled for other layers is compiled anew, inside and after."""
    reset: Any = torch._dynamo.reset if step.compiled else nullcontext
    reset()
    try:
        yield
    finally:
        reset()


def _as_in(step: Step, function: Callable[..., T]) -> Callable[..., T]:
    return one_graph(function) if step.compiled else function


def _random(step: Step, *shape: int) -> Tensor:
    return torch.randn(*shape, device=step.device, dtype=step.weight_dtype)
