"""BatchCoder: segments coded side by side, by integer probabilities that the compiled engine gives their codes.

Every segment is a clip of the engine from the start of a track, with a range coder of its own. What a clip computes
depends on nothing but its own codes: neither their number nor that of threads can change a bit.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import no_type_check

import numpy as np
import torch

from stereo_sashimi.codec.bisection import MAX_BITS, code_by_halves, room
from stereo_sashimi.codec.range_coder import BYTES_A_DECISION, BYTES_AT_END, begin, finish, new_coders
from stereo_sashimi.generation.engines.compiled.compiled_engine import CompiledEngine
from stereo_sashimi.generation.engines.compiled.draw import parameters
from stereo_sashimi.generation.engines.compiled.program import Rows
from stereo_sashimi.generation.engines.compiled.step import centre, feed
from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.ops.cpu.vector import compiled, is_kept

# Frames between two looks at what else is to be done: Ctrl-C, progress.
BLOCK = 1024

# Takes numbers of frames that are done; of a pair among more channels it is that share of them.
Progress = Callable[[float], object] | None


class BatchCoder:
    """Codes as many segments at once as `engine` has clips; it is put to the start of a track, here and by `rewind`."""

    def __init__(self, engine: CompiledEngine) -> None:
        self.engine, self.model, self.batch_size = engine, engine.model, engine.batch_size
        self.rewind()

    @staticmethod
    def preparation(model: LanguageModel) -> str | None:
        """One-time start-up work to announce, or None."""
        waiting = CompiledEngine.preparation(model)
        return "compiling its loops for this machine, once, for up to a minute" if not is_kept(code_block) else waiting

    def rewind(self) -> None:
        """Back to the start of a track."""
        self.engine.rewind()

    def encode(self, segments: Sequence[np.ndarray], on_frames: Progress = None) -> list[bytes]:
        """The code of each segment (frames, channels) of integer codes."""
        capacity = BLOCK * self.model.spec.n_channels * MAX_BITS * BYTES_A_DECISION + BYTES_AT_END
        data, starts = np.empty((len(segments), capacity), np.uint8), np.arange(len(segments)) * capacity
        coders, at = new_coders(len(segments)), starts.copy()
        parts = [bytearray() for _ in segments]
        for codes, first in self._blocks([len(segment) for segment in segments]):
            for i, segment in enumerate(segments):
                part = segment[first : first + codes.shape[1]]
                codes[i, : len(part)] = part
            self._code(codes, first, segments, coders, data.reshape(-1), at, starts, True)
            for written, own, size in zip(parts, data, at - starts, strict=True):
                written += own[:size].tobytes()
            at[:] = starts
            _report(on_frames, segments, first, codes.shape[1])
        for written, own, coder in zip(parts, data, coders, strict=True):
            written += own[: finish(coder, own, 0)].tobytes()
        return [bytes(written) for written in parts]

    def decode(self, coded: Sequence[bytes], lengths: Sequence[int], on_frames: Progress = None) -> list[np.ndarray]:
        """The inverse of `encode`: codes of segments of these lengths. Bytes that code none give some codes too."""
        ends, coders = np.cumsum([len(part) for part in coded]), new_coders(len(coded))
        # The loops write where they encode.
        data, at = np.frombuffer(b"".join(coded), np.uint8).copy(), ends - [len(part) for part in coded]
        for i, coder in enumerate(coders):
            at[i] = begin(coder, data, at[i], ends[i])
        out = [np.empty((length, self.model.spec.n_channels), np.int32) for length in lengths]
        for codes, first in self._blocks(lengths):
            found = self._code(codes, first, out, coders, data, at, ends, False)
            for segment, own in zip(out, found, strict=True):
                part = segment[first : first + len(own)]
                part[:] = own[: len(part)]
            _report(on_frames, out, first, codes.shape[1])
        return out

    def _blocks(self, lengths: Sequence[int]) -> Iterator[tuple[np.ndarray, int]]:
        """Room for the codes (segments, frames, channels) of each block, filled with the start code; its first frame.

        A segment that has ended goes on with these, which are not coded.
        """
        spec, longest = self.model.spec, max(lengths)
        for first in range(0, longest, BLOCK):
            shape = (len(lengths), min(BLOCK, longest - first), spec.n_channels)
            yield np.full(shape, spec.start_code, np.int64), first

    def _code(
        self,
        codes: np.ndarray,
        first: int,
        segments: Sequence[np.ndarray],
        coders: np.ndarray,
        data: np.ndarray,
        at: np.ndarray,
        ends: np.ndarray,
        encodes: bool,
    ) -> np.ndarray:
        """Code a block, as `code_block`; returns its codes."""
        model, program, each = self.model, self.engine.program, self.model.n_sequences
        folded = np.ascontiguousarray(model.fold(torch.from_numpy(codes)).numpy())
        lengths = np.array([len(segment) - first for segment in segments])

        def task(rows: Rows, phase: int) -> None:
            code_block(program, rows, phase, folded, lengths, each, coders, data, at, ends, encodes)

        self.engine.walk(codes.shape[1], task, len(segments) * each, each)
        return model.unfold(torch.from_numpy(folded)).numpy()


def _report(on_frames: Progress, segments: Sequence[np.ndarray], first: int, frames: int) -> None:
    if on_frames is not None:
        on_frames(sum(max(0, min(len(segment) - first, frames)) for segment in segments))


@compiled
@no_type_check
def code_block(program, rows, phase, codes, lengths, each, coders, data, at, ends, encodes):
    """Encode or decode the first `lengths` (segments) frames of `codes` (rows, frames, channels).

    A segment has `each` rows, one of the `coders`, and its bytes in `data` from `at` on, where it goes on afterwards;
    those to be decoded end at `ends`.
    """
    head = program.head
    mixture, sums = room(head)
    for t in range(codes.shape[1]):
        for c in range(codes.shape[2]):
            parameters(program, rows, codes, t, c)
            for row in range(rows.first, rows.last):
                i = row // each
                if t < lengths[i]:
                    middle, base = centre(program, rows, row, c), row * rows.size
                    codes[row, t, c], at[i] = code_by_halves(
                        head, rows.memory, base, middle, mixture, sums, coders[i], data, at[i], ends[i],
                        codes[row, t, c], encodes,
                    )  # fmt: skip
        feed(program, rows, phase + t, codes, t)
