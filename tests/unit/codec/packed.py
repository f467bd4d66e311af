"""The bytes of .ssc files taken apart and put together, as docs/codec.md has them; any header, any payloads."""

import io
import json
import struct
import zlib

from stereo_sashimi.codec.container import MAGIC, FileHeader, Part, Reader
from stereo_sashimi.schema import to_plain


def pack(header: FileHeader, parts: list[Part], envelope: bytes = b"") -> bytes:
    text = json.dumps(to_plain(header), separators=(",", ":")).encode()
    entries = (struct.pack("<BBIII", p.mode, p.shift, len(p.payload), zlib.crc32(p.payload), p.crc) for p in parts)
    table = b"".join(entries)
    check = struct.pack("<I", zlib.crc32(envelope, zlib.crc32(table)))
    head = MAGIC + struct.pack("<II", len(text), zlib.crc32(text)) + text
    return head + table + check + envelope + b"".join(part.payload for part in parts)


def reader(data: bytes, name: str = "the data") -> Reader:
    return Reader(io.BytesIO(data), name)


def unpack(data: bytes, name: str = "the data") -> tuple[FileHeader, list[Part], bytes]:
    file = reader(data, name)
    parts = [part for i in range(file.header.n_segments) for part in file.parts(i)]
    return file.header, parts, file.envelope
