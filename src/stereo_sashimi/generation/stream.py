"""Stream: a language model running as a recurrence, frame by frame; plain torch, the reference of every faster engine.

The lines that run are the model's own `forward` with a state: what it computes one frame at a time equals one pass
over the whole sequence (law "convolution = recurrence").
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from stereo_sashimi.generation.sample import Sampler, UniformStreams
from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.models.sashimi import SashimiState
from stereo_sashimi.nn.freeze import freeze

# Frames of a prompt that go through the model at once: bounds memory, changes no result.
PREFILL_FRAMES = 1 << 15


class Frame(NamedTuple):
    """One generated frame of every stream: codes (batch, 1, channels) and their log-probability in nats."""

    codes: Tensor
    log_prob: Tensor


class Stream:
    """`batch_size` parallel recurrences of one model, from the start of a track.

    - `model`: its parameters are read once, here; later changes do not reach the stream.
    - `batch_size`: number of independent streams, at least 1.
    """

    @torch.no_grad()
    def __init__(self, model: LanguageModel, batch_size: int) -> None:
        if batch_size < 1:
            raise ValueError(f"n_samples must be at least 1; got {batch_size}.")
        frozen = freeze(model)
        assert isinstance(frozen, LanguageModel)
        self.model, self.batch_size, self.spec = frozen, batch_size, frozen.spec
        self._state = frozen.initial_state(batch_size)
        for segment in frozen.start_codes(batch_size).split(PREFILL_FRAMES, dim=1):
            self.step(segment)

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return self._hidden.device

    @torch.no_grad()
    def step(self, codes: Int64[Tensor, "batch length channels"]) -> Float[Tensor, "batch length width"]:
        """Feed known codes, at least one frame; returns the features that predict the frame after each of them."""
        if codes.shape[1] < 1:
            raise ValueError("Stream.step needs at least one frame of codes; got none.")
        hidden, state = self.model(codes, self._state)
        assert state is not None
        self._state, self._hidden = state, hidden[:, -1:]
        return hidden

    @torch.no_grad()
    def prefill(self, codes: Int64[Tensor, "batch length channels"]) -> Float[Tensor, "batch length channels"]:
        """Feed a prompt in parallel passes; returns its log-probability in nats."""
        log_probs = []
        # An empty tensor splits into one empty segment, not into none.
        for segment in codes.split(PREFILL_FRAMES, dim=1) if codes.shape[1] else ():
            first = self._hidden
            hidden = self.step(segment)
            log_probs.append(self.model.head.log_prob(torch.cat([first, hidden[:, :-1]], dim=1), segment))
        return torch.cat(log_probs, dim=1) if log_probs else codes.to(self._hidden.dtype)

    def state(self) -> tuple[SashimiState, Tensor]:
        """Everything that continues this stream: a value, not a view that later steps change."""
        return self._state, self._hidden

    def restore(self, state: tuple[SashimiState, Tensor]) -> None:
        """Continue from a value of `state()`."""
        self._state, self._hidden = state

    @torch.no_grad()
    def generate(self, n_frames: int, sampler: Sampler, seeds: Sequence[int]) -> Iterator[Frame]:
        """Draw `n_frames` frames, one at a time. `seeds` has one number a stream.

        The log-probabilities are the untempered model's own.
        """
        if len(seeds) != self.batch_size:
            raise ValueError(f"generate needs one seed a stream: {self.batch_size}; got {len(seeds)}.")
        head = self.model.head
        uniforms = UniformStreams(seeds, self.spec.n_channels, head.n_uniforms, self._hidden.device)
        for _ in range(n_frames):
            codes, log_prob = head.sample(
                self._hidden,
                uniforms.next_frame(),
                temperature=sampler.temperature,
                top_k=sampler.top_k,
                top_p=sampler.top_p,
            )
            self.step(codes)
            yield Frame(codes, log_prob)
