"""The bytes of an .ssc file: header, table of segments, what else the audio file held, payloads. No audio, no model.

The layout is in docs/codec.md ("Container"). It is written and read front to back, a segment at a time, so memory does
not grow with the recording; sizes are compared with those of the file before memory is taken.
"""

import json
import struct
import zlib
from dataclasses import dataclass
from typing import IO, Any, NamedTuple

import numpy as np

from stereo_sashimi.schema import from_plain, to_plain

MAGIC = b"\x89SSC\r\n\x1a\n"
VERSION = 3
# How a part is stored: by the model, as PCM, or as one frame that all of its frames equal.
MODEL, RAW, CONSTANT = range(3)
MODES = ("model", "raw", "constant")
# The kinds of files that a recording may come from; "pcm" is none.
KINDS = ("pcm", "wav", "aiff", "flac")
BITS = (8, 16, 24)
MAX_SEGMENT_FRAMES, MAX_FRAMES, MAX_ENVELOPE, MAX_CHANNELS = 1 << 20, 1 << 40, 1 << 26, 255
# A segment is held in memory, whatever number of channels a file claims.
MAX_SEGMENT_SAMPLES = 1 << 25
_MAX_HEADER = 1 << 16
_ENTRY = np.dtype([("mode", "u1"), ("shift", "u1"), ("size", "<u4"), ("crc", "<u4"), ("pcm_crc", "<u4")])
_NO_DIGEST = "0" * 64


def most_frames(n_channels: int) -> int:
    """Frames that a segment of so many channels may have."""
    return min(MAX_SEGMENT_FRAMES, MAX_SEGMENT_SAMPLES // n_channels)


class CodecError(ValueError):
    """A recording cannot be coded, or a file cannot be decoded; the message says why and what to do."""


@dataclass(frozen=True)
class FileHeader:
    """What a file says of itself; its fields are those of the JSON in the file.

    Attributes:
        container: The kind of audio file that was coded.
        sample_rate, n_channels, bits, frames: Of the recording.
        segment_frames: Of every segment but the last.
        model: The name of the shipped model that coded it, or "".
        weights, probe: Hashes of the model's weights, and of what it and the coder compute.
        pcm: SHA-256 of the samples, little-endian.
        envelope: Bytes of what else the audio file held, compressed.
        package: Version of this package.
    """

    version: int
    container: str
    sample_rate: int
    n_channels: int
    bits: int
    frames: int
    segment_frames: int
    model: str
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
    def pairs(self) -> list[range]:
        """Channels that are coded together: two and two, a last one alone."""
        return [range(c, min(c + 2, self.n_channels)) for c in range(0, self.n_channels, 2)]

    @property
    def pcm_bytes(self) -> int:
        """Bytes of the samples, as audio files hold them."""
        return self.frames * self.n_channels * self.bits // 8

    def length(self, segment: int) -> int:
        """Frames of one segment."""
        return min(self.segment_frames, self.frames - segment * self.segment_frames)


class Part(NamedTuple):
    """What is stored of one pair of channels in one segment.

    - `shift`: low bits of every sample that are zero and are not coded.
    - `crc`: CRC-32 of its PCM.
    """

    mode: int
    shift: int
    payload: bytes
    crc: int


class Writer:
    """Writes a file: `add` takes the parts of segment after segment, `close` the digest of the samples.

    `header`: its `pcm` and `envelope` are set here.
    """

    def __init__(self, file: IO[bytes], header: FileHeader, envelope: bytes = b"") -> None:
        self._file, self._envelope = file, envelope
        self._plain = to_plain(header) | {"pcm": _NO_DIGEST, "envelope": len(envelope)}
        self._entries: list[tuple[int, ...]] = []
        self._start = file.tell()
        front = len(self._front(header.n_segments * len(header.pairs) * _ENTRY.itemsize * b"\0"))
        self.size = front
        file.write(bytes(front))

    def add(self, part: Part) -> None:
        """The next part."""
        mode, shift, payload, crc = part
        self._entries.append((mode, shift, len(payload), zlib.crc32(payload), crc))
        self._file.write(payload)
        self.size += len(payload)

    def close(self, digest: str) -> None:
        """All parts were added; `digest`: SHA-256 of the samples."""
        self._plain["pcm"] = digest
        end = self._file.tell()
        self._file.seek(self._start)
        self._file.write(self._front(np.array(self._entries, _ENTRY).tobytes()))
        self._file.seek(end)

    def _front(self, table: bytes) -> bytes:
        text = json.dumps(self._plain, separators=(",", ":")).encode()
        check = struct.pack("<I", zlib.crc32(self._envelope, zlib.crc32(table)))
        return b"".join([MAGIC, struct.pack("<II", len(text), zlib.crc32(text)), text, table, check, self._envelope])


class Reader:
    """An .ssc file, whose `header`, `envelope` and table are read here; raises CodecError where they are not valid.

    `file` can seek; `name` is for messages.
    """

    def __init__(self, file: IO[bytes], name: str) -> None:
        self._file, self.name = file, name
        self.size = file.seek(0, 2)
        file.seek(0)
        self.header = header = _read_header(file, name)
        n_parts = header.n_segments * len(header.pairs)
        if file.tell() + n_parts * _ENTRY.itemsize + 4 + header.envelope > self.size:
            raise CodecError(f"{name} ends early: it was cut off. Fetch or make it again.")
        table, check = file.read(n_parts * _ENTRY.itemsize), file.read(4)
        self.envelope = file.read(header.envelope)
        if struct.pack("<I", zlib.crc32(self.envelope, zlib.crc32(table))) != check:
            raise _damaged(name, "table of segments")
        self._entries = np.frombuffer(table, _ENTRY)
        ends = file.tell() + np.cumsum(self._entries["size"], dtype=np.int64)
        self._places = ends - self._entries["size"]
        if (ends[-1] if n_parts else file.tell()) != self.size:
            raise CodecError(f"{name} has another length than its table says: cut off or added to. Fetch it again.")

    @property
    def modes(self) -> dict[str, int]:
        """How many parts are stored each way."""
        counts = np.bincount(self._entries["mode"], minlength=len(MODES))
        return {name: int(count) for name, count in zip(MODES, counts, strict=False) if count}

    def parts(self, segment: int) -> list[Part]:
        """The parts of one segment. Raises CodecError for one that is not what was written."""
        count = len(self.header.pairs)
        return [self._part(segment, i, segment * count + i) for i in range(count)]

    def _part(self, segment: int, pair: int, index: int) -> Part:
        (mode, shift, size, crc, pcm_crc), header = self._entries[index].item(), self.header
        frame = len(header.pairs[pair]) * header.bits // 8
        raw = header.length(segment) * frame
        self._file.seek(int(self._places[index]))
        # The model's code is stored only where it is the smaller one.
        fits = mode < len(MODES) and {MODEL: size < raw, RAW: size == raw, CONSTANT: size == frame}[mode]
        payload = self._file.read(size) if fits and shift < header.bits else None
        if payload is None or zlib.crc32(payload) != crc:
            raise _damaged(self.name, f"segment {segment}")
        return Part(mode, shift, payload, pcm_crc)


def _read_header(file: IO[bytes], name: str) -> FileHeader:
    if file.read(len(MAGIC)) != MAGIC:
        raise CodecError(f"{name} is no .ssc file: it does not begin like one. Give a file that action=encode wrote.")
    sizes = file.read(8)
    if len(sizes) < 8:
        raise CodecError(f"{name} ends early: it was cut off. Fetch or make it again.")
    length, crc = struct.unpack("<II", sizes)
    text = file.read(length) if length <= _MAX_HEADER else b""
    if len(text) != length or zlib.crc32(text) != crc:
        raise _damaged(name, "header")
    try:
        plain: Any = json.loads(text)
        version = plain.get("version") if isinstance(plain, dict) else None
        if type(version) is int and version in (1, 2):
            raise CodecError(
                f"{name} has version {version} of the format, written by a development version of stereo-sashimi. "
                "Decode it with that version of the package, then code it again with this one."
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
        ("sample_rate", 1, 2**32 - 1),
        ("n_channels", 1, MAX_CHANNELS),
        ("frames", 0, MAX_FRAMES),
        ("segment_frames", 1, MAX_SEGMENT_FRAMES),
        ("envelope", 0, MAX_ENVELOPE),
    ):
        value = getattr(header, key)
        if not least <= value <= most:
            raise CodecError(f"{name} has a header that is not valid: {key} must be {least} to {most}; got {value}.")
    if header.segment_frames > (most := most_frames(header.n_channels)):
        raise CodecError(
            f"{name} has a header that is not valid: segment_frames of {header.n_channels} channels must be 1 to "
            f"{most}; got {header.segment_frames}."
        )
    for key, allowed in (("container", KINDS), ("bits", BITS)):
        if getattr(header, key) not in allowed:
            names = ", ".join(map(str, allowed))
            raise CodecError(f"{name} has a header that is not valid: {key} must be one of {names}.")
    # They are printed, and a terminal obeys some characters.
    for key in ("model", "weights", "probe", "pcm", "package"):
        value = getattr(header, key)
        if len(value) > 100 or not (value.isascii() and value.isprintable()):
            raise CodecError(f"{name} has a header that is not valid: {key} is no short text of printable characters.")


def _damaged(name: str, part: str) -> CodecError:
    return CodecError(f"{name} is damaged: its {part} is not what was written. Fetch or make the file again.")
