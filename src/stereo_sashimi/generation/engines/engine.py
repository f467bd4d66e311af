"""Engine: what steps a frozen model through time and draws its frames, and the choice of one by name.

`Stream` owns the model, the random numbers and the prompt; an engine owns the recurrence. All of them compute what
`ReferenceEngine` computes. A new one is a subclass and a line in `ENGINES`.
"""

from abc import ABC, abstractmethod
from importlib import import_module
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from stereo_sashimi.distributions.sampler import Sampler
from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.models.sashimi import SashimiState

# Modules and classes; imported when chosen, as some of them take their time.
ENGINES: dict[str, tuple[str, str]] = {
    "reference": ("stereo_sashimi.generation.engines.reference_engine", "ReferenceEngine"),
    "cudagraph": ("stereo_sashimi.generation.engines.cuda_graph", "CudaGraphEngine"),
    "compiled": ("stereo_sashimi.generation.engines.compiled.compiled_engine", "CompiledEngine"),
}

NON_FINITE = (
    "the model computes NaN or infinity, so nothing can be drawn from it: its weights are damaged or overflow their "
    "precision. Use another checkpoint of the run, or train again with a smaller optimizer.lr."
)


class EngineError(ValueError):
    """An engine that was named cannot run this model here; the message says why and what to choose instead."""


class NonFiniteOutputError(ValueError):
    """The model's features or log-probabilities are NaN or infinite: what would be drawn from them means nothing."""

    def __init__(self, message: str = NON_FINITE) -> None:
        super().__init__(message)


class Frames(NamedTuple):
    """Generated frames of every stream: codes (batch, frames, channels), int64, and their log-probability in nats.

    The log-probability is that of the model itself, whatever the temperature, top_k and top_p.
    """

    codes: Tensor
    log_prob: Tensor


class EngineState(NamedTuple):
    """What continues a recurrence: the backbone's state, and `hidden` (rows, 1, width), which predicts the next frame.

    It belongs to no engine: each can go on from what another one left.
    """

    backbone: SashimiState
    hidden: Tensor


class Engine(ABC):
    """`batch_size` recurrences of one model, which share a phase. After construction call `restore` or `rewind`.

    Args:
        model: frozen (`nn.freeze`), so its parameters never change.
        batch_size: at least 1.
    """

    name: ClassVar[str]

    def __init__(self, model: LanguageModel, batch_size: int) -> None:
        self.model, self.batch_size = model, batch_size

    def like(self, batch_size: int) -> "Engine":
        """Another one of the same model, which says nothing of where it stands."""
        return type(self)(self.model, batch_size)

    @classmethod
    @abstractmethod
    def check(cls, model: LanguageModel) -> None:
        """Raise EngineError if this engine cannot run `model` where its parameters are."""

    @classmethod
    def preparation(cls, model: LanguageModel) -> str | None:
        """One-time start-up work to announce before `model` runs, or None."""
        return None

    @torch.no_grad()
    def rewind(self) -> None:
        """Go to the start of a track, by steps of this engine: so it has the engine's own bits."""
        model, weights = self.model, next(self.model.parameters())
        blank = weights.new_zeros(self.batch_size * model.n_sequences, 1, model.backbone.width)
        self.restore(EngineState(model.initial_state(self.batch_size), blank))
        self.step(model.start_codes(self.batch_size))

    @abstractmethod
    def step(self, codes: Int64[Tensor, "batch length channels"]) -> Float[Tensor, "rows length width"]:
        """Feed known frames, at least one; the features that predict the frame after each of them."""

    @abstractmethod
    def draw(self, sampler: Sampler, uniforms: Float64[Tensor, "batch length channels n_uniforms"]) -> Frames:
        """Draw as many frames as there are numbers for, each with the features that the one before left."""

    @abstractmethod
    def state(self) -> EngineState:
        """Where the recurrences stand: a value, not a view that later steps change."""

    @abstractmethod
    def restore(self, state: EngineState) -> None:
        """Go on from there."""


def resolve(engine: str, model: LanguageModel) -> type[Engine]:
    """The engine of that name, after a look whether it can run `model`. `auto`: `compiled` if it can, else `reference`.

    Raises EngineError for an unknown name, and for an engine that cannot.
    """
    if engine == "auto":
        weights = next(model.parameters())
        # Not cudagraph on CUDA devices: it has to be named until it has been measured on one.
        fast = weights.device.type == "cpu" and weights.dtype == torch.float32
        engine = "compiled" if fast else "reference"
    if engine not in ENGINES:
        raise EngineError(f"engine must be one of auto, {', '.join(ENGINES)}; got {engine!r}.")
    module, name = ENGINES[engine]
    chosen: type[Engine] = getattr(import_module(module), name)
    chosen.check(model)
    return chosen
