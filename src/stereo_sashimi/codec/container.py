"""The bytes of an .ssc file: header, the kept parts of a WAV file, table of segments, payloads. No audio, no model.

The layout is in docs/codec.md ("Container"). Everything is checked before anything is decoded, and sizes are compared
with those of the file before memory is taken.
"""

import json
import struct
import zlib
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from stereo_sashimi.schema import from_plain, to_plain
from stereo_sashimi.spec import AudioSpec

MAGIC = b"\x89SSC\r\n\x1a\n"
VERSION = 2
# How a segment is stored: by the model, as PCM, or as one frame that all of its frames equal.
MODEL, RAW, CONSTANT = range(3)
MODES = ("model", "raw", "constant")
MAX_SEGMENT_FRAMES, MAX_FRAMES, MAX_ENVELOPE = 1 << 20, 1 << 32, 1 << 24
_MAX_HEADER = 1 << 16
_ENTRY = struct.Struct("<BIII")


class CodecError(ValueError):
    """A recording cannot be coded, or a file cannot be decoded; the message says why and what to do."""


@dataclass(frozen=True)
class FileHeader:
    """What a file says of itself; its fields are those of the JSON in the file.

    Attributes:
        spec: Rate, channels and bits of the recording.
        frames, segment_frames: Of the whole recording, and of every segment but the last.
        weights, probe: SHA-256 of the model's weights, and of the probabilities that it gives.
        pcm: SHA-256 of the samples, int16 little-endian.
        envelope: Its bytes.
        package: Version of this package.
    """

    version: int
    spec: AudioSpec = field(metadata={"classes": (AudioSpec,)})
    frames: int
    segment_frames: int
    weights: str
    probe: str
    pcm: str
    envelope: int
    package: str

    @property
    def n_segments(self) -> int:
        """How many segments there are; 0 for no frames."""
        return -(-self.frames // self.segment_frames)

    @property
    def pcm_bytes(self) -> int:
        """Bytes of the samples, as a WAV file holds them."""
        return self.frames * self.spec.n_channels * self.spec.bits // 8

    def length(self, segment: int) -> int:
        """Frames of one segment."""
        return min(self.segment_frames, self.frames - segment * self.segment_frames)


class Segment(NamedTuple):
    """One stored segment: its mode, payload, and the CRC-32 of its PCM."""

    mode: int
    payload: bytes
    crc: int


def pack(header: FileHeader, segments: list[Segment], envelope: bytes = b"") -> bytes:
    """The bytes of a file."""
    text = json.dumps(to_plain(header), separators=(",", ":")).encode()
    table = b"".join(_ENTRY.pack(s.mode, len(s.payload), zlib.crc32(s.payload), s.crc) for s in segments)
    head = struct.pack("<II", len(text), zlib.crc32(text)) + text
    check = struct.pack("<I", zlib.crc32(envelope, zlib.crc32(table)))
    return b"".join([MAGIC, head, table, check, envelope, *(s.payload for s in segments)])


def unpack(data: bytes, name: str = "the data") -> tuple[FileHeader, list[Segment], bytes]:
    """FileHeader, segments and envelope of a file's bytes; every checksum is compared.

    Raises CodecError, naming the file by `name`, for bytes that are no such file, are altered, or end early or late.
    """
    view, header = memoryview(data), read_header(data, name)
    at = len(MAGIC) + 8 + struct.unpack_from("<I", view, len(MAGIC))[0]
    end = at + header.n_segments * _ENTRY.size
    if end + 4 + header.envelope > len(view):
        raise CodecError(f"{name} ends early: it was cut off. Fetch or make it again.")
    entries = list(_ENTRY.iter_unpack(view[at:end]))
    envelope = bytes(view[end + 4 : end + 4 + header.envelope])
    if zlib.crc32(envelope, zlib.crc32(view[at:end])) != struct.unpack_from("<I", view, end)[0]:
        raise _damaged(name, "table of segments")
    at = end + 4 + header.envelope
    if at + sum(entry[1] for entry in entries) != len(view):
        raise CodecError(f"{name} has another length than its table says: cut off or added to. Fetch it again.")
    segments = []
    for i, (mode, size, crc, pcm_crc) in enumerate(entries):
        payload = bytes(view[at : at + size])
        if zlib.crc32(payload) != crc or mode >= len(MODES):
            raise _damaged(name, f"segment {i}")
        _check_size(header, i, mode, size, name)
        segments.append(Segment(mode, payload, pcm_crc))
        at += size
    return header, segments, envelope


def read_header(data: bytes, name: str = "the data") -> FileHeader:
    """The header alone. Raises CodecError."""
    if data[: len(MAGIC)] != MAGIC:
        raise CodecError(f"{name} is no .ssc file: it does not begin like one. Give a file that action=encode wrote.")
    start = len(MAGIC) + 8
    if len(data) < start:
        raise CodecError(f"{name} ends early: it was cut off. Fetch or make it again.")
    length, crc = struct.unpack_from("<II", data, len(MAGIC))
    text = bytes(data[start : start + length]) if length <= _MAX_HEADER else b""
    if len(text) != length or zlib.crc32(text) != crc:
        raise _damaged(name, "header")
    try:
        plain: Any = json.loads(text)
        version = plain.get("version") if isinstance(plain, dict) else None
        if type(version) is int and version == 1:
            raise CodecError(
                f"{name} has version 1 of the format, written by a development version of stereo-sashimi before format "
                "2. Decode it with that version of the package, then code it again with this one."
            )
        if type(version) is int and version > VERSION:
            raise CodecError(f"{name} has version {version} of the format; this package reads {VERSION}.")
        header: FileHeader = from_plain(plain, (FileHeader,), "header")
    except CodecError:
        raise
    except (ValueError, RecursionError) as error:
        raise CodecError(f"{name} has a header that is not valid: {error}") from error
    _check_bounds(header, name)
    return header


def _check_bounds(header: FileHeader, name: str) -> None:
    for key, least, most in (
        ("version", VERSION, VERSION),
        ("frames", 0, MAX_FRAMES),
        ("segment_frames", 1, MAX_SEGMENT_FRAMES),
        ("envelope", 0, MAX_ENVELOPE),
    ):
        value = getattr(header, key)
        if not least <= value <= most:
            raise CodecError(f"{name} has a header that is not valid: {key} must be {least} to {most}; got {value}.")
    # They are printed, and a terminal obeys some characters.
    for key in ("weights", "probe", "pcm", "package"):
        value = getattr(header, key)
        if len(value) > 100 or not (value.isascii() and value.isprintable()):
            raise CodecError(f"{name} has a header that is not valid: {key} is no short text of printable characters.")


def _check_size(header: FileHeader, segment: int, mode: int, size: int, name: str) -> None:
    frame = header.spec.n_channels * header.spec.bits // 8
    raw = header.length(segment) * frame
    # The model's code is stored only where it is the smaller one.
    fits = {MODEL: size % 4 == 0 and size < raw, RAW: size == raw, CONSTANT: size == frame}[mode]
    if not fits:
        raise _damaged(name, f"segment {segment}")


def _damaged(name: str, part: str) -> CodecError:
    return CodecError(f"{name} is damaged: its {part} is not what was written. Fetch or make the file again.")
