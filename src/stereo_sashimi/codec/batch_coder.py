"""Lanes: segments side by side in one recurrence, turned into integer probabilities and back. Compiled loops inside.

Every lane is a row of the compiled engine from the start of a track, with a range coder of its own (constriction).
What a row computes depends on nothing but its own codes: neither the number of lanes nor of threads can change a bit.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, no_type_check

import constriction
import numpy as np
import torch

from stereo_sashimi.codec.quantized_pmf import CELLS, n_stages, stage_counts
from stereo_sashimi.generation.engines.compiled import step as loops
from stereo_sashimi.generation.engines.compiled.compiled_engine import CompiledEngine
from stereo_sashimi.generation.engines.compiled.draw import N_CHANNELS, N_LEVELS, parameters
from stereo_sashimi.generation.engines.compiled.program import Packed
from stereo_sashimi.generation.engines.engine import EngineState, check_finite
from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.ops.cpu.threads import for_each
from stereo_sashimi.ops.cpu.vector import compiled, is_kept

# Frames whose probabilities are held at once while encoding: 512 KiB a lane for stereo of 16 bits.
BLOCK = 128
# Weights W_j of CELLS cells that sum to 2^24 - CELLS are exact in float32, and constriction then gives cell j exactly
# the probability (1 + W_j) / 2^24: the rule of masses.py, whatever it does with other numbers.
FAMILY = constriction.stream.model.Categorical(perfect=False)

Words = np.ndarray


class Lanes(CompiledEngine):
    """`n_lanes` recurrences of a frozen model, at the start of a track after construction and after `rewind`."""

    def __init__(self, model: LanguageModel, n_lanes: int, packed: Packed | None = None) -> None:
        super().__init__(model, n_lanes, packed)
        self._stages = n_stages(model.spec.n_levels)
        self._channels = int(self.packed.head[N_CHANNELS])
        self.rewind()

    @classmethod
    def preparation(cls) -> str | None:
        """Compiling, where that was not done before."""
        return None if is_kept(weigh_block) else "compiling its loops for this machine, once, for some 20 seconds"

    def rewind(self) -> None:
        """Back to the start of a track."""
        model, lanes = self.model, self.batch_size
        blank = next(model.parameters()).new_zeros(lanes * model.n_sequences, 1, model.backbone.width)
        self.restore(EngineState(model.initial_state(lanes), blank))
        self.step(model.start_codes(lanes))

    def like(self, batch_size: int) -> "Lanes":
        """Another one with the same packed weights."""
        return Lanes(self.model, batch_size, self.packed)

    def encode(self, segments: Sequence[np.ndarray], on_frames: Callable[[int], object] | None = None) -> list[Words]:
        """The code of each segment (frames, channels) of int64 codes, one a lane, as uint32 words of a range coder."""
        coders = [constriction.stream.queue.RangeEncoder() for _ in segments]
        for block in self.weigh(segments):
            for coder, (weights, cells) in zip(coders, block, strict=True):
                # Behind the end of a shorter segment there is nothing to code.
                if len(cells):
                    coder.encode(cells, FAMILY, weights)
            if on_frames is not None:
                symbols = sum(len(cells) for _, cells in block)
                on_frames(symbols // (self.model.spec.n_channels * self._stages))
        return [coder.get_compressed() for coder in coders]

    def weigh(self, segments: Sequence[np.ndarray]) -> Iterator[list[tuple[np.ndarray, np.ndarray]]]:
        """Block by block and for each segment, as `encode` takes them: P_j - 1 (symbols, CELLS) and cells (symbols)."""
        longest = max(len(segment) for segment in segments)
        for start in range(0, longest, BLOCK):
            frames = min(BLOCK, longest - start)
            parts = [segment[start : start + frames] for segment in segments]
            weighed = self._weigh(self._rows_of(parts, frames))[: len(parts)]
            yield [
                (weights[: len(part)].reshape(-1, CELLS), cells[: len(part)].ravel())
                for part, (weights, cells) in zip(parts, weighed, strict=True)
            ]

    def decode(
        self, words: Sequence[Words], lengths: Sequence[int], on_frames: Callable[[int], object] | None = None
    ) -> list[np.ndarray]:
        """The inverse of `encode`: codes of segments of these lengths. Words that code none give some codes too."""
        out = [np.zeros((length, self.model.spec.n_channels), np.int64) for length in lengths]
        coders = [constriction.stream.queue.RangeDecoder(np.ascontiguousarray(w, np.uint32)) for w in words]
        threads = self._threads()
        bounds = [len(words) * i // threads for i in range(threads + 1)]
        phase, longest, over = self._phase, max(lengths), threading.Event()

        def run(first: int, last: int, tell: bool) -> None:
            self._decode(first, last, phase, coders, out, on_frames if tell else None, over)

        try:
            # Each thread walks through its own lanes; only the coders' calls hold python's lock.
            for_each(run, [(a, b, i == 0) for i, (a, b) in enumerate(pairwise(bounds)) if a < b])
        finally:
            # After Ctrl-C, or an error in one of them, the others need not go on: python waits for them at its end.
            over.set()
        self._phase = (phase + longest) % self.model.backbone.stride
        self._check()
        return out

    def _decode(
        self,
        first: int,
        last: int,
        phase: int,
        coders: Sequence[Any],
        out: Sequence[np.ndarray],
        on_frames: Callable[[int], object] | None,
        over: threading.Event,
    ) -> None:
        packed, each = self.packed, self.model.n_sequences
        rows = range(first * each, last * each)
        codes = np.zeros((self._rows, 1, self._channels), np.int64)
        counts = np.zeros((self._rows, CELLS), np.float32)
        upper = np.zeros(self._rows, np.int64)
        lengths = [len(segment) for segment in out[first:last]]
        span, category = (rows.start, rows.stop), constriction.stream.model.Categorical
        for t in range(max(lengths)):
            if over.is_set():
                return
            alive = [row for row in rows if t < len(out[row // each])]
            for c in range(self._channels):
                for stage in range(self._stages):
                    weigh_stage(
                        *(packed.weights, packed.head, packed.mixers, self._memory, packed.size, *span),
                        *(codes, 0, c, stage, upper, counts),
                    )
                    for row in alive:
                        cell = coders[row // each].decode(category(counts[row], perfect=False, lazy=True))
                        upper[row] = cell if stage == 0 else upper[row] * CELLS + cell
                codes[rows.start : rows.stop, 0, c] = upper[rows.start : rows.stop]
            for row in alive:
                out[row // each][t, row % each :: each] = codes[row, 0]
            feed_frame(
                *(packed.plan, packed.weights, packed.epsilons, packed.tables, packed.embedding, self._memory),
                *(packed.size, *span, phase + t, codes),
            )
            if on_frames is not None and (t + 1) % BLOCK == 0:
                on_frames(BLOCK * len(out))

    def _weigh(self, codes: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each lane of `codes` (rows, frames, channels): weights (frames, symbols, CELLS), and the cells coded."""
        packed, frames = self.packed, codes.shape[1]
        shape = (self._rows, frames, self._channels, self._stages)
        weights, cells = np.empty((*shape, CELLS), np.float32), np.empty(shape, np.int32)
        threads = self._threads()
        bounds = [self._rows * i // threads for i in range(threads + 1)]

        def run(first: int, last: int) -> None:
            weigh_block(
                *(packed.plan, packed.weights, packed.epsilons, packed.tables, packed.embedding, packed.head),
                *(packed.mixers, self._memory, packed.size, first, last, self._phase, codes, weights, cells),
            )

        for_each(run, [(a, b) for a, b in pairwise(bounds) if a < b])
        self._phase = (self._phase + frames) % self.model.backbone.stride
        self._check()
        # (lane, sequence, frame, channel, stage, ..): a decoder takes a stage of all sequences before the next one.
        lanes = (self.batch_size, self.model.n_sequences, *shape[1:])
        by_lane = np.moveaxis(weights.reshape(*lanes, CELLS), 1, 4).reshape(self.batch_size, frames, -1, CELLS)
        chosen = np.moveaxis(cells.reshape(lanes), 1, 4).reshape(self.batch_size, frames, -1)
        return list(zip(by_lane, chosen, strict=True))

    def _rows_of(self, segments: Sequence[np.ndarray], frames: int) -> np.ndarray:
        """Codes (rows, frames, head's channels); lanes without a segment, or behind its end, hear the start code."""
        each, spec = self.model.n_sequences, self.model.spec
        codes = np.full((self.batch_size, frames, spec.n_channels), spec.start_code, np.int64)
        for lane, segment in enumerate(segments):
            codes[lane, : len(segment)] = segment
        folded = codes.reshape(self.batch_size, frames, each, -1).transpose(0, 2, 1, 3)
        return np.ascontiguousarray(folded.reshape(self._rows, frames, -1))

    def _threads(self) -> int:
        return min(torch.get_num_threads(), self.batch_size)

    def _check(self) -> None:
        features = self._memory.reshape(self._rows, -1)[:, : self.model.backbone.width]
        check_finite(bool(np.isfinite(features).all()))


@compiled
@no_type_check
def weigh_stage(w, head, mixers, memory, size, first, last, codes, t, c, stage, upper, counts):
    """`stage_counts` of the rows to `counts` (rows, CELLS); the first stage computes the parameters of channel c."""
    if stage == 0:
        parameters(head, w, mixers, memory, size, first, last, codes, t, c)
    for row in range(first, last):
        stage_counts(head, memory, size, row, stage, upper[row], counts[row])


@compiled
@no_type_check
def feed_frame(plan, w, epsilons, tables, embedding, memory, size, first, last, phase, codes):
    """The rows take the one frame of `codes`."""
    loops.feed(plan, w, epsilons, tables, embedding, memory, size, first, last, phase, codes, 0)


@compiled
@no_type_check
def weigh_block(plan, w, epsilons, tables, embedding, head, mixers, memory, size, first, last, phase, codes, weights,
                cells):  # fmt: skip
    """All frames of `codes`: `weights` (rows, frames, channels, stages, CELLS) of each, and the cells it lies in."""
    stages = weights.shape[3]
    for t in range(codes.shape[1]):
        for c in range(codes.shape[2]):
            parameters(head, w, mixers, memory, size, first, last, codes, t, c)
            for row in range(first, last):
                code = codes[row, t, c]
                upper = code // (head[N_LEVELS] // CELLS)
                cells[row, t, c, 0] = upper
                stage_counts(head, memory, size, row, 0, upper, weights[row, t, c, 0])
                if stages > 1:
                    cells[row, t, c, 1] = code % CELLS
                    stage_counts(head, memory, size, row, 1, upper, weights[row, t, c, 1])
        loops.feed(plan, w, epsilons, tables, embedding, memory, size, first, last, phase + t, codes, t)
