"""Stream: a language model running as a recurrence, frame by frame, on one of the engines in `engines/`."""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from stereo_sashimi.distributions.sampler import Sampler
from stereo_sashimi.generation.engines.engine import Engine, EngineState, Frames, resolve
from stereo_sashimi.generation.philox import RandomState, UniformStreams
from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.models.sashimi import SashimiState
from stereo_sashimi.nn.freeze import freeze

# Frames of a prompt that go through the model at once: bounds memory, changes no result.
PREFILL_FRAMES = 1 << 15


class StreamState(NamedTuple):
    """Everything that continues a stream, on whatever engine: `engine` and `random`."""

    engine: EngineState
    random: RandomState


class Stream:
    """`batch_size` parallel recurrences of one model, from the start of a track.

    Args:
        model: Its parameters are read once, here; later changes do not reach the stream.
        batch_size: Number of independent streams, at least 1.
        engine: A name in `engine.ENGINES`, or `auto`: `compiled` for float32 on a CPU, else `reference`.
            `stream.engine.name` says which it is.

    Raises:
        EngineError: A ValueError; the engine that was named cannot run this model here.
    """

    @torch.no_grad()
    def __init__(self, model: LanguageModel, batch_size: int, engine: str = "auto") -> None:
        _check_batch_size(batch_size)
        chosen = resolve(engine, model)
        frozen = freeze(model)
        self.model, self.batch_size, self.spec = frozen, batch_size, frozen.spec
        self.engine: Engine = chosen(frozen, batch_size)
        self._uniforms = self._random(range(batch_size))
        self.engine.rewind()

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return next(self.model.parameters()).device

    def step(self, codes: Int64[Tensor, "batch length channels"]) -> Float[Tensor, "rows length width"]:
        """Feed known codes, at least one frame, one after the other; the features that predict the frame after each.

        `prefill` feeds many frames in far less time.
        """
        self._check(codes)
        if codes.shape[1] < 1:
            raise ValueError("Stream.step needs at least one frame of codes; got none.")
        return self.engine.step(codes)

    @torch.no_grad()
    def prefill(self, codes: Int64[Tensor, "batch length channels"]) -> Float[Tensor, "batch length channels"]:
        """Feed a prompt in parallel passes; returns its log-probability in nats."""
        self._check(codes)
        log_probs = []
        # An empty tensor splits into one empty segment, not into none.
        for segment in codes.split(PREFILL_FRAMES, dim=1) if codes.shape[1] else ():
            state, first = self.engine.state()
            hidden, last, after = self.model.hidden_of(segment, first, state)
            self.engine.restore(EngineState(after, last))
            log_probs.append(self.model.score(hidden, segment).log_prob)
        return torch.cat(log_probs, dim=1) if log_probs else codes.to(next(self.model.parameters()).dtype)

    def state(self) -> StreamState:
        """Everything that continues this stream: a value, not a view that later steps change."""
        return StreamState(self.engine.state(), self._uniforms.state())

    def restore(self, state: StreamState) -> None:
        """Continue from a value of `state()`, of this stream or of another one of the same model and batch size.

        It may come from another engine, and from another device. Raises ValueError for a state of another model,
        precision or number of streams.
        """
        if len(state.random.seeds) != self.batch_size:
            raise ValueError(
                f"this state is that of {len(state.random.seeds)} streams; the stream has a batch_size of "
                f"{self.batch_size}."
            )
        self._check_state(state.engine)
        (phase, layers), hidden = state.engine
        here = tuple(None if layer is None else layer.to(self.device) for layer in layers)
        self.engine.restore(EngineState(SashimiState(phase, here), hidden.to(self.device)))
        self._uniforms = self._random(state.random.seeds, state.random.position)

    @torch.no_grad()
    def spread(self, batch_size: int) -> "Stream":
        """A stream with a larger batch, all of which continue from here; this one must have a `batch_size` of 1.

        So many continuations of a prompt read it once.
        """
        _check_batch_size(batch_size)
        if self.batch_size != 1:
            raise ValueError(f"Stream.spread needs a stream with a batch_size of 1; this one has {self.batch_size}.")
        other = object.__new__(Stream)
        other.model, other.batch_size, other.spec = self.model, batch_size, self.spec
        other.engine = self.engine.like(batch_size)
        other._uniforms = other._random(range(batch_size))
        (phase, layers), hidden = self.engine.state()
        rows = tuple(None if x is None else x.repeat(batch_size, *[1] * (x.dim() - 1)) for x in layers)
        other.engine.restore(EngineState(SashimiState(phase, rows), hidden.repeat(batch_size, 1, 1)))
        return other

    def seed(self, seeds: Sequence[int]) -> None:
        """Start the random numbers of the streams anew, with one seed each. A new stream has the seeds 0, 1, ..."""
        if len(seeds) != self.batch_size:
            raise ValueError(f"generate needs one seed a stream: {self.batch_size}; got {len(seeds)}.")
        self._uniforms = self._random(seeds)

    def draw(self, n_frames: int, sampler: Sampler) -> Frames:
        """Draw the next frames in one call of the engine; the head must accept `sampler` (`head.check_sampling`)."""
        return self.engine.draw(sampler, self._uniforms.take(n_frames))

    def generate(
        self,
        n_frames: int | None,
        sampler: Sampler | None = None,
        seeds: Sequence[int] | None = None,
        frames_at_once: int = 1,
    ) -> Iterator[Frames]:
        """Draw frames and yield `frames_at_once` at a time, the last time maybe fewer.

        Args:
            n_frames: None draws without end.
            sampler: None draws from the model itself.
            seeds: As `seed`; None continues the random numbers in use.
            frames_at_once: Larger blocks cost less time a frame; the codes are the same. Between two blocks the stream
                stands behind what was yielded.

        Raises:
            ValueError: The head cannot sample like this, another number of seeds, or a seed out of range.
        """
        sampler = sampler or Sampler()
        self.model.head.check_sampling(sampler)
        if frames_at_once < 1:
            raise ValueError(f"frames_at_once must be at least 1; got {frames_at_once}.")
        if n_frames is not None and n_frames < 0:
            raise ValueError(f"n_frames must be 0 or more, or None for no end; got {n_frames}.")
        if seeds is not None:
            self.seed(seeds)
        starts = itertools.count() if n_frames is None else range(0, n_frames, frames_at_once)
        return (
            self.draw(frames_at_once if n_frames is None else min(frames_at_once, n_frames - start), sampler)
            for start in starts
        )

    def _random(self, seeds: Sequence[int], position: int = 0) -> UniformStreams:
        return UniformStreams(seeds, self.spec.n_channels, self.model.head.n_uniforms, position)

    def _check(self, codes: Tensor) -> None:
        expected = (self.batch_size, self.spec.n_channels)
        if codes.ndim != 3 or (codes.shape[0], codes.shape[2]) != expected:
            raise ValueError(
                f"this stream takes codes of shape (batch, length, channels) = ({expected[0]}, length, {expected[1]}); "
                f"got {tuple(codes.shape)}."
            )
        if codes.dtype != torch.int64:
            raise ValueError(f"codes are int64; got {codes.dtype}. Convert them with codes.long().")
        if codes.numel():
            # One pass, and one wait for a GPU.
            low, high = torch.stack(codes.aminmax()).tolist()
            if low < 0 or high >= self.spec.n_levels:
                raise ValueError(f"codes must lie in 0 to {self.spec.n_levels - 1}; got {low} to {high}.")

    def _check_state(self, state: EngineState) -> None:
        (_, layers), hidden = self.engine.state()
        pairs = [(hidden, state.hidden)]
        fits = len(layers) == len(state.backbone.layers) and 0 <= state.backbone.phase < self.model.backbone.stride
        for ours, theirs in zip(layers, state.backbone.layers, strict=False):
            fits = fits and (ours is None) == (theirs is None)
            pairs += [] if ours is None or theirs is None else [(ours, theirs)]
        for ours, theirs in pairs:
            # Pools, the real ones, hold as many frames between the outer axes as the phase says.
            axes = slice(None, None, 2 if ours.dim() == 3 and not ours.is_complex() else 1)
            fits = fits and ours.dim() == theirs.dim() and ours.dtype == theirs.dtype
            fits = fits and ours.shape[axes] == theirs.shape[axes]
        if not fits:
            raise ValueError(
                "this state belongs to another model, precision or batch size; a stream goes on from states of "
                f"streams of its own model with a batch_size of {self.batch_size}."
            )


def _check_batch_size(batch_size: int) -> None:
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size must be an integer of at least 1, one for each sample; got {batch_size!r}.")
