"""BatchCoder: segments coded side by side, by integer probabilities that the compiled engine gives their codes.

Every segment is a clip of the engine from the start of a track, with a range coder of its own (constriction). What a
clip computes depends on nothing but its own codes: neither their number nor that of threads can change a bit.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import no_type_check

import constriction
import numpy as np
import torch

from stereo_sashimi.codec.quantized_pmf import CELLS, n_stages, stage_counts
from stereo_sashimi.generation.engines.compiled.compiled_engine import CompiledEngine
from stereo_sashimi.generation.engines.compiled.draw import parameters
from stereo_sashimi.generation.engines.compiled.program import Rows
from stereo_sashimi.generation.engines.compiled.step import centre, feed
from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.ops.cpu.vector import compiled, is_kept

# Frames whose probabilities are held at once while encoding: 512 KiB a segment for stereo of 16 bits.
BLOCK = 128
# Weights W_j of CELLS cells that sum to 2^24 - CELLS are exact in float32, and constriction then gives cell j exactly
# the probability (1 + W_j) / 2^24: the rule of `quantized_pmf.py`, whatever it does with other numbers.
FAMILY = constriction.stream.model.Categorical(perfect=False)

Words = np.ndarray
Progress = Callable[[int], object] | None


class BatchCoder:
    """Codes as many segments at once as `engine` has clips; it is put to the start of a track, here and by `rewind`."""

    def __init__(self, engine: CompiledEngine) -> None:
        self.engine, self.model, self.batch_size = engine, engine.model, engine.batch_size
        self._channels, self._stages = len(engine.program.head.linear), n_stages(self.model.spec.n_levels)
        self.rewind()

    @staticmethod
    def preparation(model: LanguageModel) -> str | None:
        """One-time start-up work to announce, or None."""
        waiting = CompiledEngine.preparation(model)
        return (
            "compiling its loops for this machine, once, for some 20 seconds" if not is_kept(weigh_block) else waiting
        )

    def rewind(self) -> None:
        """Back to the start of a track."""
        self.engine.rewind()

    def encode(self, segments: Sequence[np.ndarray], on_frames: Progress = None) -> list[Words]:
        """The code of each segment (frames, channels) of int64 codes, as uint32 words of a range coder."""
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
            weights, cells = self._weigh(self._rows_of(parts, frames))
            yield [
                (weights[i, : len(part)].reshape(-1, CELLS), cells[i, : len(part)].ravel())
                for i, part in enumerate(parts)
            ]

    def decode(self, words: Sequence[Words], lengths: Sequence[int], on_frames: Progress = None) -> list[np.ndarray]:
        """The inverse of `encode`: codes of segments of these lengths. Words that code none give some codes too."""
        each, longest = self.model.n_sequences, max(lengths)
        out = [np.zeros((length, self.model.spec.n_channels), np.int64) for length in lengths]
        coders = [constriction.stream.queue.RangeDecoder(np.ascontiguousarray(w, np.uint32)) for w in words]
        over = threading.Event()

        def task(rows: Rows, phase: int) -> None:
            own = slice(rows.first // each, rows.last // each)
            for t in self._decode(rows, phase, coders[own], out[own]):
                if over.is_set():
                    return
                if on_frames is not None and rows.first == 0 and t % BLOCK == 0:
                    on_frames(BLOCK * len(out))

        try:
            # Each thread walks through its own segments; only the coders' calls hold python's lock.
            self.engine.walk(longest, task, len(words) * each, each)
        finally:
            # After Ctrl-C, or an error in one of them, the others need not go on: python waits for them at its end.
            over.set()
        return out

    def _decode(self, rows: Rows, phase: int, coders: Sequence, out: Sequence[np.ndarray]) -> Iterator[int]:
        """Decode into `out`, frame by frame; yields the number of frames that are done."""
        each, program = self.model.n_sequences, self.engine.program
        codes, counts = np.zeros((rows.last, 1, self._channels), np.int64), np.zeros((rows.last, CELLS), np.float32)
        upper, category = np.zeros(rows.last, np.int64), constriction.stream.model.Categorical
        for t in range(max(len(segment) for segment in out)):
            segments = [i for i, segment in enumerate(out) if t < len(segment)]
            alive = [(rows.first + i * each + j, coders[i]) for i in segments for j in range(each)]
            for c in range(self._channels):
                for stage in range(self._stages):
                    weigh_stage(program, rows, codes, c, stage, upper, counts)
                    for row, coder in alive:
                        cell = coder.decode(category(counts[row], perfect=False, lazy=True))
                        upper[row] = cell if stage == 0 else upper[row] * CELLS + cell
                codes[rows.first : rows.last, 0, c] = upper[rows.first : rows.last]
            for i in segments:
                for j in range(each):
                    out[i][t, j::each] = codes[rows.first + i * each + j, 0]
            feed(program, rows, phase + t, codes, 0)
            yield t + 1

    def _weigh(self, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of `codes` (rows, frames, channels): weights (segments, frames, symbols, CELLS), and the cells coded."""
        shape = (*codes.shape, self._stages)
        weights, cells = np.empty((*shape, CELLS), np.float32), np.empty(shape, np.int32)
        program = self.engine.program
        self.engine.walk(codes.shape[1], lambda rows, phase: weigh_block(program, rows, phase, codes, weights, cells))
        # (segment, sequence, frame, channel, stage, ..): a decoder takes a stage of all sequences before the next one.
        parts, symbols = (self.batch_size, self.model.n_sequences, *shape[1:]), (self.batch_size, shape[1], -1)
        by_segment = np.moveaxis(weights.reshape(*parts, CELLS), 1, 4).reshape(*symbols, CELLS)
        return by_segment, np.moveaxis(cells.reshape(parts), 1, 4).reshape(symbols)

    def _rows_of(self, segments: Sequence[np.ndarray], frames: int) -> np.ndarray:
        """Codes (rows, frames, head's channels); without a segment, or behind its end, the start code."""
        spec = self.model.spec
        codes = np.full((self.batch_size, frames, spec.n_channels), spec.start_code, np.int64)
        for i, segment in enumerate(segments):
            codes[i, : len(segment)] = segment
        return np.ascontiguousarray(self.model.fold(torch.from_numpy(codes)).numpy())


@compiled
@no_type_check
def weigh_stage(program, rows, codes, c, stage, upper, counts):
    """`stage_counts` of the rows to `counts` (rows, CELLS); the first stage computes the parameters of channel c."""
    if stage == 0:
        parameters(program, rows, codes, 0, c)
    for row in range(rows.first, rows.last):
        middle = centre(program, rows, row, c)
        stage_counts(program.head, rows.memory, row * rows.size, middle, stage, upper[row], counts[row])


@compiled
@no_type_check
def weigh_block(program, rows, phase, codes, weights, cells):
    """All frames of `codes`: `weights` (rows, frames, channels, stages, CELLS) of each, and the cells it lies in."""
    head, memory, stages = program.head, rows.memory, weights.shape[3]
    for t in range(codes.shape[1]):
        for c in range(codes.shape[2]):
            parameters(program, rows, codes, t, c)
            for row in range(rows.first, rows.last):
                code, base = codes[row, t, c], row * rows.size
                upper = code // (head.n_levels // CELLS)
                cells[row, t, c, 0] = upper
                middle = centre(program, rows, row, c)
                stage_counts(head, memory, base, middle, 0, upper, weights[row, t, c, 0])
                if stages > 1:
                    cells[row, t, c, 1] = code % CELLS
                    stage_counts(head, memory, base, middle, 1, upper, weights[row, t, c, 1])
        feed(program, rows, phase + t, codes, t)
