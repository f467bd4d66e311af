"""What an audio file holds beside its samples: all bytes around them, or the metadata of a FLAC file."""

import shutil
import struct
import zlib
from pathlib import Path
from typing import IO, NamedTuple

from stereo_sashimi.codec.container import MAX_ENVELOPE, CodecError

_HEAD = struct.Struct("<?I")
# Blocks of FLAC's metadata that its writer makes anew: STREAMINFO and SEEKTABLE (RFC 9639).
_STREAMINFO, _SEEKTABLE = 0, 3


class Envelope(NamedTuple):
    """Bytes before and behind the samples, and how these lie in between; of FLAC the metadata, as `head`."""

    head: bytes
    tail: bytes
    big_endian: bool

    def packed(self, path: Path) -> bytes:
        """As a coded file keeps it. Raises CodecError for more than it may hold."""
        packed = zlib.compress(_HEAD.pack(self.big_endian, len(self.head)) + self.head + self.tail, 9)
        # What cannot be compressed becomes a little longer.
        if max(len(self.head) + len(self.tail), len(packed)) > MAX_ENVELOPE:
            raise CodecError(
                f"{path} has more than {MAX_ENVELOPE >> 20} MiB beside its samples, which would be kept too. Remove "
                "its metadata."
            )
        return packed


def open_envelope(packed: bytes, name: str) -> Envelope:
    """The inverse of `Envelope.packed`. Raises CodecError for bytes that are none."""
    stream = zlib.decompressobj()
    try:
        # A small stream can unfold to any size. With one byte more than are allowed its end is seen.
        content = stream.decompress(packed, MAX_ENVELOPE + _HEAD.size + 1)
        big_endian, length = _HEAD.unpack_from(content)
    except (zlib.error, struct.error) as error:
        raise CodecError(f"{name} is damaged: the header of its audio file cannot be read ({error}).") from error
    start = _HEAD.size
    if not stream.eof or stream.unused_data or not start + length <= len(content) <= MAX_ENVELOPE + start:
        raise CodecError(f"{name} is damaged: the header of its audio file has another length than it says.")
    return Envelope(content[start : start + length], content[start + length :], big_endian)


def sample_bytes_start(file: IO[bytes]) -> int:
    """Where the samples of a WAV or AIFF file begin; libsndfile has found them before.

    EBU Tech 3306 and AIFF 1.3: chunks of an id, a size and a body.
    """
    file.seek(0)
    magic = file.read(12)
    order = ">" if magic[:4] in (b"FORM", b"RIFX") else "<"
    while len(header := file.read(8)) == 8:
        chunk, length = struct.unpack(f"{order}4sI", header)
        if chunk == b"data":
            return file.tell()
        if chunk == b"SSND":
            # An offset and a block size stand before the samples.
            (offset,) = struct.unpack(">I4x", file.read(8))
            return file.tell() + int(offset)
        file.seek(length + length % 2, 1)
    raise CodecError(f"{file.name}: there is no chunk of samples.")


def flac_metadata(file: IO[bytes]) -> bytes:
    """All bytes of a FLAC file before its first frame: its magic and all metadata blocks (RFC 9639)."""
    file.seek(0)
    if file.read(4) != b"fLaC":
        raise CodecError(f"{file.name}: its FLAC stream is not where it should be. Convert it to a plain FLAC file.")
    at, last = 4, False
    while not last:
        file.seek(at)
        header = file.read(4)
        if len(header) < 4:
            raise CodecError(f"{file.name}: its FLAC stream ends early. Fetch or make it again.")
        last, at = header[0] >= 128, at + 4 + int.from_bytes(header[1:], "big")
        if at > MAX_ENVELOPE:
            raise CodecError(f"{file.name} has more than {MAX_ENVELOPE >> 20} MiB of metadata. Remove some.")
    file.seek(0)
    return file.read(at)


def with_metadata(made: IO[bytes], metadata: bytes, out: IO[bytes]) -> None:
    """Write the FLAC file `made` to `out` with the `metadata` of another one, but for what tells of the stream."""
    stream_info = [block for kind, block in _blocks(flac_metadata(made)) if kind == _STREAMINFO]
    kept = [block for kind, block in _blocks(metadata) if kind not in (_STREAMINFO, _SEEKTABLE)]
    out.write(b"fLaC")
    blocks = [*stream_info, *kept]
    for i, block in enumerate(blocks):
        out.write(bytes([block[0] & 127 | (128 if i == len(blocks) - 1 else 0)]) + block[1:])
    made.seek(len(flac_metadata(made)))
    shutil.copyfileobj(made, out)


def _blocks(metadata: bytes) -> list[tuple[int, bytes]]:
    """The metadata blocks of a stream and their kinds."""
    at, found = 4, []
    while at < len(metadata):
        end = at + 4 + int.from_bytes(metadata[at + 1 : at + 4], "big")
        found.append((metadata[at] & 127, metadata[at:end]))
        at = end
    return found
