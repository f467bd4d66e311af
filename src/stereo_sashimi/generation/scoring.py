"""Scoring: how many bits a model needs for a recording.

`score` does it in one call; `Scoring` in pieces, so that it can be interrupted: `Scoring.state` goes into a file, and a
scoring restored from it ends with the very same bits. The model's state is carried through the whole recording, or
starts anew at every segment.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stereo_sashimi.audio.files import check_pcm
from stereo_sashimi.audio.quantize import encode
from stereo_sashimi.generation import stream as stream_module
from stereo_sashimi.generation.engines.engine import EngineState, NonFiniteOutputError
from stereo_sashimi.generation.results import TrackScore
from stereo_sashimi.generation.stream import Stream, StreamState
from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.models.sashimi import SashimiState
from stereo_sashimi.schema import check_count
from stereo_sashimi.spec import LN2

# Most segments that are scored at once.
_SEGMENTS = 8


def score(model: LanguageModel, pcm: np.ndarray, segment_frames: int | None = None) -> TrackScore:
    """Score a recording; the result is that of `model.log_prob` on the codes of `pcm`, summed.

    Args:
        pcm: int16 (frames, channels) in the model's format, as `read` gives it.
        segment_frames: The model starts a new track after so many frames; None never.

    Raises:
        ValueError: Another array, or a model that computes NaN or infinity (NonFiniteOutputError).
    """
    scoring = Scoring(model, pcm, segment_frames)
    for _ in scoring.pieces():
        continue
    return scoring.result()


class Scoring:
    """A score made piece by piece, at a memory of `PREFILL_FRAMES` frames beside the PCM.

    A `normalize` other than none looks at the whole recording, also where it is scored in segments.

    Args:
        pcm: int16 (frames, channels) in the model's format.
        segment_frames: Frames after which the state starts anew as at the start of a track, at least 1; None never.

    Raises:
        ValueError: It is out of range, or the array is another one.
    """

    def __init__(self, model: LanguageModel, pcm: np.ndarray, segment_frames: int | None) -> None:
        check_pcm(pcm, model.spec)
        if segment_frames is not None:
            check_count(segment_frames, "segment_frames")
        self._model, self._pcm, self._spec = model, pcm, model.spec
        self._length = min(segment_frames or len(pcm), len(pcm))
        self._rows = max(1, min(_SEGMENTS, stream_module.PREFILL_FRAMES // self._length))
        # Any other normalisation looks at the whole recording; its codes fit into 16 bits.
        self._codes = None if model.spec.normalize == "none" else encode(pcm, model.spec).astype(np.uint16)
        self._nats = np.zeros(model.spec.n_channels)
        self._seconds = np.zeros((-(-len(pcm) // model.spec.sample_rate), model.spec.n_channels))
        # First frame of the current group of segments, and how many frames of each are done.
        self._start, self._offset = 0, 0
        self._stream: Stream | None = None
        self._beginning: StreamState | None = None

    def pieces(self) -> Iterator[int]:
        """Score a piece more at each turn, and yield its frames. Raises NonFiniteOutputError for NaN or infinity."""
        while self._start < len(self._pcm):
            rows, length = self._group()
            stream = self._stream_of(rows)
            stop = min(self._offset + stream_module.PREFILL_FRAMES, length)
            firsts = [self._start + row * length for row in range(rows)]
            codes = np.stack([self._encode(first + self._offset, first + stop) for first in firsts])
            log_prob = stream.prefill(torch.from_numpy(codes).to(stream.device))
            # float64: float32 would lose bits over millions of frames.
            for first, nats in zip(firsts, -log_prob.cpu().double().numpy(), strict=True):
                self._add(first + self._offset, nats)
            frames, self._offset = rows * (stop - self._offset), stop
            if stop == length:
                self._start, self._offset = self._start + rows * length, 0
            yield frames

    def result(self) -> TrackScore:
        """The score of all frames so far; of the whole recording once `pieces` has ended."""
        return TrackScore(tuple(self._nats.tolist()), self.frames, self._spec)

    def second_bits(self) -> list[list[float]]:
        """Bits of each second so far, (seconds, channels); the last second may be short."""
        bits: list[list[float]] = (self._seconds / LN2).tolist()
        return bits

    @property
    def frames(self) -> int:
        """Frames that are scored."""
        return self._start + self._offset * self._group()[0] if self._start < len(self._pcm) else len(self._pcm)

    def state(self) -> dict[str, Any]:
        """Everything that continues from here, as numbers and tensors for `torch.save`."""
        content: dict[str, Any] = {
            "start": self._start,
            "offset": self._offset,
            "nats": torch.from_numpy(self._nats.copy()),
            "seconds": torch.from_numpy(self._seconds.copy()),
        }
        if self._offset and self._stream is not None:
            (phase, layers), hidden = self._stream.state().engine
            # Copies: a view would be saved with all of the tensor that it looks at.
            content["phase"], content["hidden"] = phase, hidden.detach().cpu().clone()
            content["layers"] = [None if layer is None else layer.detach().cpu().clone() for layer in layers]
        return content

    def restore(self, content: dict[str, Any]) -> None:
        """Continue from a `state()` of the same model, recording and arguments. Raises ValueError for anything else."""
        start, offset = (content.get(key) if isinstance(content, dict) else None for key in ("start", "offset"))
        end = len(self._pcm)
        if type(start) is not int or not 0 <= start <= end or (start % self._length and start != end):
            raise ValueError("no segment begins at its start")
        self._start, self._offset = start, 0
        if type(offset) is not int or not 0 <= offset < max(1, self._group()[1]):
            raise ValueError("its offset lies outside of the segment")
        self._offset = offset
        stream = self._new_stream(self._group()[0])
        like = self.state()
        check_structure(content, like, "state")
        self._nats, self._seconds = content["nats"].numpy().copy(), content["seconds"].numpy().copy()
        if offset:
            if content["phase"] != (like["phase"] + offset) % self._model.backbone.stride:
                raise ValueError("its phase is not that of its offset")
            engine = EngineState(SashimiState(content["phase"], tuple(content["layers"])), content["hidden"])
            stream.restore(StreamState(engine, stream.state().random))

    def _group(self) -> tuple[int, int]:
        """How many segments are scored together, and their frames: full ones in a batch, a shorter last one alone."""
        left = len(self._pcm) - self._start
        return (min(self._rows, left // self._length), self._length) if left >= self._length else (1, left)

    def _stream_of(self, rows: int) -> Stream:
        """The stream of the current group, at the start of a track for a new one."""
        if self._stream is None or self._stream.batch_size != rows:
            return self._new_stream(rows)
        if not self._offset:
            assert self._beginning is not None
            self._stream.restore(self._beginning)
        return self._stream

    def _new_stream(self, rows: int) -> Stream:
        # Nothing is drawn, so packing weights for a faster engine would be a waste.
        self._stream = Stream(self._model, rows, "reference")
        self._beginning = self._stream.state()
        return self._stream

    def _encode(self, start: int, stop: int) -> np.ndarray:
        if self._codes is not None:
            return self._codes[start:stop].astype(np.int64)
        return encode(self._pcm[start:stop], self._spec)

    def _add(self, first: int, nats: np.ndarray) -> None:
        """Add the nats (frames, channels) of the frames from `first` on."""
        if not np.isfinite(nats).all():
            raise NonFiniteOutputError(
                "the model computes NaN or infinity for this recording, so its bits mean nothing: its weights are "
                "damaged or overflow their precision. Use another checkpoint of the run."
            )
        self._nats += nats.sum(0)
        rate = self._spec.sample_rate
        edges = np.arange(-(-first // rate) * rate, first + len(nats), rate) - first
        edges = edges if len(edges) and edges[0] == 0 else np.concatenate([[0], edges])
        second = first // rate
        self._seconds[second : second + len(edges)] += np.add.reduceat(nats, edges.astype(np.int64), axis=0)


def check_structure(value: Any, like: Any, where: str) -> None:
    """Raise ValueError, naming the place, unless `value` is built like `like`, and all of its numbers are finite.

    Types, keys, lengths, shapes and dtypes are compared, the numbers and texts themselves are not.
    """
    if type(value) is not type(like):
        raise ValueError(f"{where} must be {type(like).__name__}; got {type(value).__name__}")
    if isinstance(like, dict):
        if value.keys() != like.keys():
            raise ValueError(f"{where} must have the fields {', '.join(map(str, like)) or '(none)'} and no others")
        for key in like:
            check_structure(value[key], like[key], f"{where}.{key}")
    elif isinstance(like, (list, tuple)):
        if len(value) != len(like):
            raise ValueError(f"{where} must have {len(like)} entries; got {len(value)}")
        for i, pair in enumerate(zip(value, like, strict=True)):
            check_structure(*pair, f"{where}[{i}]")
    elif isinstance(like, Tensor) and (value.shape, value.dtype) != (like.shape, like.dtype):
        raise ValueError(f"{where} must be {like.dtype} {list(like.shape)}; got {value.dtype} {list(value.shape)}")
    finite = value.isfinite().all() if isinstance(like, Tensor) else not isinstance(like, float) or math.isfinite(value)
    if not finite:
        raise ValueError(f"{where} is NaN or infinite")
