"""The S4 layers of a model, taken apart as a benchmark needs them: kernel, convolution, and a backbone without both."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.nn import S4, s4
from stereo_sashimi.ops import s4_response
from stereo_sashimi.ops.cpu import scan
from stereo_sashimi.ops.discretize import Discrete
from stereo_sashimi.ops.fftconv import causal_convolution


def s4_layers(model: LanguageModel) -> list[S4]:
    """The S4 layers in the order they run."""
    return [part for step in model.backbone.schedule() for part in step.module.modules() if isinstance(part, S4)]


def is_stepped(layer: S4, inputs: Tensor) -> bool:
    """Whether the layer's backend steps through `inputs` (rows, length, d_model) and needs no kernel."""
    return layer.backend == "recurrent" or (
        layer.backend == "auto" and inputs.device.type == "cpu" and len(inputs) == 1
    )


def prepared(layer: S4, length: int, stepped: bool) -> list[Tensor]:
    """What a layer computes from its parameters alone: its kernel (d_model, length), or what stepping needs."""
    ssm = layer.ssm.discretize()
    if stepped:
        return [field for field in ssm if field is not None]
    return [s4_response.KERNELS[layer.backend](ssm, length, layer.D.dtype)]


def convolved(layer: S4, ssm: Discrete, kernel: Tensor, inputs: Tensor, state: Tensor | None, stepped: bool) -> Tensor:
    """What a layer computes from its input, given everything that `prepared` makes: the output of its SSM."""
    if stepped:
        return scan.scan(ssm, inputs, state)[0]
    if state is None:
        return causal_convolution(inputs.mT, kernel).mT
    return s4_response.advance(ssm, kernel, inputs.mT, state)[0].mT


@contextmanager
def without_convolution(model: LanguageModel) -> Iterator[None]:
    """Inside, S4 layers discretise nothing and convolve nothing: what goes in there comes out unchanged."""

    def unchanged(
        backend: str, ssm: Discrete, u: Tensor, state: Tensor | None, *_: Any
    ) -> tuple[Tensor, Tensor | None]:
        return u, state

    with ExitStack() as stack:
        stack.enter_context(_replaced(vars(s4), "respond", unchanged))
        for layer in s4_layers(model):
            with torch.no_grad():
                ssm = layer.ssm.discretize()
            # Found before the method of the class.
            stack.enter_context(_replaced(vars(layer.ssm), "discretize", lambda ssm=ssm: ssm))
        yield


@contextmanager
def _replaced(names: dict[str, Any], name: str, value: object) -> Iterator[None]:
    there, before = name in names, names.get(name)
    names[name] = value
    try:
        yield
    finally:
        if there:
            names[name] = before
        else:
            del names[name]
