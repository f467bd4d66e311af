"""The parts of a file: segments of PCM coded by a model, or stored, and back; each pair of channels a part."""

import zlib
from collections.abc import Sequence

import numpy as np

from stereo_sashimi.codec.batch_coder import BatchCoder, Progress
from stereo_sashimi.codec.coders import Coders
from stereo_sashimi.codec.container import CONSTANT, MODEL, RAW, FileHeader, Part


def batches(header: FileHeader, numbers: range, coders: Coders) -> list[range]:
    """Numbers of segments that are coded together: at least one, and as many as fill the coders."""
    at_once = max(1, coders.lanes // len(header.pairs))
    # What is in memory at once is bounded, whatever a file asks for; that changes no bit.
    at_once = max(1, min(at_once, (1 << 23) // (header.segment_frames * header.n_channels)))
    return [numbers[i : i + at_once] for i in range(0, len(numbers), at_once)]


def encode_segments(
    coders: Coders, header: FileHeader, segments: Sequence[np.ndarray], on_frames: Progress
) -> list[list[Part]]:
    """The parts of each segment, each stored in the shortest of the three ways."""
    bits = header.bits
    pieces = [[np.ascontiguousarray(pcm[:, channels]) for channels in header.pairs] for pcm in segments]
    found: dict[int, Part] = {}
    flat = [piece for own in pieces for piece in own]
    shifts = [_shift(piece) for piece in flat]
    for width in {piece.shape[1] for piece in flat}:
        moving = [i for i, p in enumerate(flat) if p.shape[1] == width and not (p == p[0]).all()]
        codes = [(flat[i] >> shifts[i]) + (1 << bits - 1) for i in moving]
        words = _coded(coders[width], codes, on_frames, width / header.n_channels)
        found.update({i: Part(MODEL, shifts[i], data, 0) for i, data in zip(moving, words, strict=True)})
    parts = []
    for i, piece in enumerate(flat):
        raw = to_bytes(piece, bits)
        part = found.get(i, Part(CONSTANT, 0, raw[: len(raw) // max(1, len(piece))], 0))
        if part.mode == MODEL and len(part.payload) >= len(raw):
            part = Part(RAW, 0, raw, 0)
        parts.append(part._replace(crc=zlib.crc32(raw)))
    count = len(header.pairs)
    return [parts[i : i + count] for i in range(0, len(parts), count)]


def _coded(coder: BatchCoder, codes: list[np.ndarray], on_frames: Progress, share: float) -> list[bytes]:
    """The code of each, as many at once as the coder takes; `share` of a frame of the recording is coded with one."""
    out: list[bytes] = []
    for first in range(0, len(codes), coder.batch_size):
        coder.rewind()
        out += coder.encode(codes[first : first + coder.batch_size], _scaled(on_frames, share))
    return out


def decode_parts(
    coders: Coders, header: FileHeader, parts: Sequence[Sequence[Part]], lengths: Sequence[int], on_frames: Progress
) -> list[np.ndarray]:
    """PCM of segments of these lengths."""
    bits, out = header.bits, [np.empty((n, header.n_channels), np.int32) for n in lengths]
    waiting: dict[int, list[tuple[np.ndarray, Part]]] = {1: [], 2: []}
    for pcm, own in zip(out, parts, strict=True):
        for channels, part in zip(header.pairs, own, strict=True):
            place = pcm[:, channels.start : channels.stop]
            if part.mode == MODEL:
                waiting[len(channels)].append((place, part))
            else:
                # A constant part holds one frame, which every frame equals.
                place[:] = of_bytes(part.payload, bits, len(channels))
                if on_frames is not None:
                    on_frames(len(place) * len(channels) / header.n_channels)
    for width, some in waiting.items():
        share = width / header.n_channels
        for first in range(0, len(some), coders.lanes):
            coder, batch = coders[width], some[first : first + coders.lanes]
            coder.rewind()
            given = [part.payload for _, part in batch], [len(place) for place, _ in batch]
            for (place, part), codes in zip(batch, coder.decode(*given, _scaled(on_frames, share)), strict=True):
                # Bytes that no encoder wrote may decode to more than fits: that is found by the checksum.
                place[:] = (codes - (1 << bits - 1)) << part.shift
    return out


def _scaled(on_frames: Progress, share: float) -> Progress:
    return None if on_frames is None else lambda frames: on_frames(frames * share)


def _shift(pcm: np.ndarray) -> int:
    """Low bits that are zero in all samples."""
    used = int(np.bitwise_or.reduce(pcm, axis=None))
    return (used & -used).bit_length() - 1 if used else 0


def to_bytes(pcm: np.ndarray, bits: int) -> bytes:
    """Samples in as many bytes as they have, signed and little-endian."""
    if bits == 24:
        return np.ascontiguousarray(pcm, "<i4").view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
    return pcm.astype("<i2" if bits == 16 else np.int8).tobytes()


def of_bytes(data: bytes | np.ndarray, bits: int, n_channels: int) -> np.ndarray:
    """The inverse of `to_bytes`: int32 (frames, channels)."""
    if bits == 24:
        parts = np.frombuffer(data, np.uint8).reshape(-1, 3)
        whole = np.zeros((len(parts), 4), np.uint8)
        whole[:, 1:] = parts
        return (whole.view("<i4") >> 8).astype(np.int32).reshape(-1, n_channels)
    return np.frombuffer(data, "<i2" if bits == 16 else np.int8).astype(np.int32).reshape(-1, n_channels)
