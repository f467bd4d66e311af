"""Bits of recordings, with the model's state carried over all of one or begun anew at every segment.

`score` in `whole.py` is the first of these in one call. Here a score can be interrupted: `Scoring.state` goes into a
file, and what is restored from it ends with the very same bits, as a recording is always cut at the same frames.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch

from stereo_sashimi.audio.files import check_pcm
from stereo_sashimi.audio.quantize import encode
from stereo_sashimi.generation import stream as stream_module
from stereo_sashimi.generation.engines.engine import EngineState, NonFiniteError
from stereo_sashimi.generation.stream import Stream, StreamState
from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.models.sashimi import SashimiState


class SegmentScore(NamedTuple):
    """The information in a recording under a model.

    - `channel_nats`: -log p of all codes of each channel, in nats.
    - `second_bits`: (seconds, channels), bits of each second; the last one may be short.
    """

    channel_nats: tuple[float, ...]
    second_bits: list[list[float]]


class Scoring:
    """A score that is being made, piece by piece, at a memory of `PREFILL_FRAMES` frames beside the PCM.

    - `pcm`: int16 (frames, channels) in the model's format. `segment_frames`: at least 1, frames after which the state
      starts anew as at the start of a track; None never. `batch_size`: most segments that are scored at once.

    The codes are those of the whole recording, which matters to a `normalize` other than none. Raises ValueError for
    anything else.
    """

    def __init__(self, model: LanguageModel, pcm: np.ndarray, segment_frames: int | None, batch_size: int = 8) -> None:
        check_pcm(pcm, model.spec)
        for name, value in (("segment_frames", segment_frames), ("batch_size", batch_size)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"{name} must be an integer of at least 1; got {value!r}.")
        self._model, self._pcm, self._spec = model, pcm, model.spec
        self._length = min(segment_frames or len(pcm), len(pcm))
        self._rows = max(1, min(batch_size, stream_module.PREFILL_FRAMES // self._length))
        # Any other normalisation looks at the whole recording; its codes fit into 16 bits.
        self._codes = None if model.spec.normalize == "none" else encode(pcm, model.spec).astype(np.uint16)
        self._nats = np.zeros(model.spec.n_channels)
        self._seconds = np.zeros((-(-len(pcm) // model.spec.sample_rate), model.spec.n_channels))
        # First frame of the segments at work, and how far each of them is.
        self._start, self._offset = 0, 0
        self._stream: Stream | None = None
        self._beginning: StreamState | None = None

    def pieces(self) -> Iterator[int]:
        """Score a piece more at each turn, and yield its frames. Raises NonFiniteError for NaN or infinity."""
        while self._start < len(self._pcm):
            rows, length = self._group()
            stream = self._at_work(rows)
            stop = min(self._offset + stream_module.PREFILL_FRAMES, length)
            firsts = [self._start + row * length for row in range(rows)]
            codes = np.stack([self._codes_of(first + self._offset, first + stop) for first in firsts])
            log_prob = stream.prefill(torch.from_numpy(codes).to(stream.device))
            # float64: float32 would lose bits over millions of frames.
            for first, nats in zip(firsts, -log_prob.cpu().double().numpy(), strict=True):
                self._count(first + self._offset, nats)
            frames, self._offset = rows * (stop - self._offset), stop
            if stop == length:
                self._start, self._offset = self._start + rows * length, 0
            yield frames

    def score(self) -> SegmentScore:
        """What was counted; of the whole recording once `pieces` has ended."""
        return SegmentScore(tuple(self._nats.tolist()), (self._seconds / math.log(2)).tolist())

    @property
    def frames(self) -> int:
        """Frames that are scored."""
        return self._start + self._offset * self._group()[0] if self._start < len(self._pcm) else len(self._pcm)

    def state(self) -> dict[str, Any]:
        """Everything that goes on from here, as numbers and tensors for `torch.save`."""
        content: dict[str, Any] = {
            "start": self._start,
            "offset": self._offset,
            "nats": torch.from_numpy(self._nats.copy()),
            "seconds": torch.from_numpy(self._seconds.copy()),
        }
        if self._offset and self._stream is not None:
            (phase, layers), hidden = self._stream.state().engine
            # Copies: a tensor that looks at a piece would be saved with all of it.
            content["phase"], content["hidden"] = phase, hidden.detach().cpu().clone()
            content["layers"] = [None if layer is None else layer.detach().cpu().clone() for layer in layers]
        return content

    def restore(self, content: dict[str, Any]) -> None:
        """Go on from a `state()` of the same model, recording and arguments."""
        self._start, self._offset = content["start"], content["offset"]
        self._nats, self._seconds = content["nats"].numpy().copy(), content["seconds"].numpy().copy()
        if self._offset:
            stream = self._new_stream(self._group()[0])
            engine = EngineState(SashimiState(content["phase"], tuple(content["layers"])), content["hidden"])
            stream.restore(StreamState(engine, stream.state().random))

    def _group(self) -> tuple[int, int]:
        """Segments at work, and the frames of each: full ones together, the shorter last one alone."""
        left = len(self._pcm) - self._start
        return (min(self._rows, left // self._length), self._length) if left >= self._length else (1, left)

    def _at_work(self, rows: int) -> Stream:
        """The stream that stands where the segments at work are."""
        stream = self._stream
        if stream is None or stream.batch_size != rows:
            return self._new_stream(rows)
        if not self._offset:
            assert self._beginning is not None
            stream.restore(self._beginning)
        return stream

    def _new_stream(self, rows: int) -> Stream:
        # No frame is drawn, so an engine's weights would be packed for nothing.
        self._stream = Stream(self._model, rows, "reference")
        self._beginning = self._stream.state()
        return self._stream

    def _codes_of(self, start: int, stop: int) -> np.ndarray:
        if self._codes is not None:
            return self._codes[start:stop].astype(np.int64)
        return encode(self._pcm[start:stop], self._spec)

    def _count(self, first: int, nats: np.ndarray) -> None:
        """Add the nats (frames, channels) of the frames from `first` on."""
        if not np.isfinite(nats).all():
            raise NonFiniteError(
                "the model computes NaN or infinity for this recording, so its bits mean nothing: its weights are "
                "damaged or overflow their precision. Use another checkpoint of the run."
            )
        self._nats += nats.sum(0)
        rate = self._spec.sample_rate
        edges = np.arange(-(-first // rate) * rate, first + len(nats), rate) - first
        edges = edges if len(edges) and edges[0] == 0 else np.concatenate([[0], edges])
        second = first // rate
        self._seconds[second : second + len(edges)] += np.add.reduceat(nats, edges.astype(np.int64), axis=0)


def score_segments(
    model: LanguageModel, pcm: np.ndarray, segment_frames: int | None, batch_size: int = 8
) -> SegmentScore:
    """How many bits the model needs for a recording; arguments and errors are those of `Scoring`.

    With `segment_frames` every segment costs what it costs as a track of its own.
    """
    scoring = Scoring(model, pcm, segment_frames, batch_size)
    for _ in scoring.pieces():
        continue
    return scoring.score()
