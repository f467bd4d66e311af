"""ReferenceEngine: the model's own `forward` with a state, one frame at a time; what every faster engine must equal.

That one frame at a time equals one pass over the whole sequence is the law "convolution = recurrence".
"""

from typing import ClassVar

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from stereo_sashimi.distributions.sampler import Sampler
from stereo_sashimi.generation.engines.engine import Engine, EngineState, Frames, NonFiniteOutputError
from stereo_sashimi.models.language_model import LanguageModel


class ReferenceEngine(Engine):
    """Plain torch, in any precision and on any device."""

    name: ClassVar[str] = "reference"

    @classmethod
    def check(cls, model: LanguageModel) -> None:
        """It runs everywhere."""

    @torch.no_grad()
    def step(self, codes: Int64[Tensor, "batch length channels"]) -> Float[Tensor, "rows length width"]:
        """Feed known frames one by one."""
        return torch.cat([self._step(frame) for frame in codes.split(1, dim=1)], dim=1)

    @torch.no_grad()
    def draw(self, sampler: Sampler, uniforms: Float64[Tensor, "batch length channels n_uniforms"]) -> Frames:
        """Draw by the head's own `sample`."""
        frames = []
        for numbers in uniforms.to(self._hidden.device).split(1, dim=1):
            codes, log_prob = self.model.sample(self._hidden, numbers, sampler, self._backbone)
            _check_finite(log_prob)
            self._step(codes)
            frames.append((codes, log_prob))
        return Frames(*(torch.cat(parts, dim=1) for parts in zip(*frames, strict=True)))

    def state(self) -> EngineState:
        """Nothing is changed in place, so this is a value."""
        return EngineState(self._backbone, self._hidden)

    def restore(self, state: EngineState) -> None:
        """Go on from there."""
        self._backbone, self._hidden = state

    def _step(self, codes: Tensor) -> Tensor:
        self._hidden, self._backbone = self.model(codes, self._backbone)
        _check_finite(self._hidden)
        return self._hidden


def _check_finite(x: Tensor) -> None:
    if not x.isfinite().all():
        raise NonFiniteOutputError
