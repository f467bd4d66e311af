"""What WAV and Ogg files lack at their end: libsndfile reads a file that was cut off without a word."""

import os
import struct
from io import BufferedReader


def missing_bytes(raw: BufferedReader) -> int:
    """Bytes that a WAV or Ogg file lacks at its end; 0 for a whole file and for other formats."""
    size, head = os.fstat(raw.fileno()).st_size, raw.read(12)
    if head[:4] in (b"RIFF", b"RF64", b"RIFX") and head[8:] == b"WAVE":
        return _missing_wav_bytes(raw, size, ">" if head[:4] == b"RIFX" else "<")
    if head[:4] == b"OggS":
        return _missing_ogg_bytes(raw, size)
    return 0


def _missing_wav_bytes(raw: BufferedReader, size: int, order: str) -> int:
    """EBU Tech 3306: chunks of an id, a 32-bit size and a body; in RF64 the size of `data` is in `ds64`."""
    long_size = None
    while len(header := raw.read(8)) == 8:
        chunk, length = struct.unpack(f"{order}4sI", header)
        body = raw.tell()
        if chunk == b"ds64" and length >= 16:
            long_size = struct.unpack(f"{order}8xQ", raw.read(16))[0]
        if chunk == b"data":
            if length == 0xFFFFFFFF:
                # Without ds64 the writer was a pipe and did not know the length: what is there counts.
                length = size - body if long_size is None else long_size
            return max(0, body + length - size)
        raw.seek(body + length + length % 2)
    return 0


def _missing_ogg_bytes(raw: BufferedReader, size: int) -> int:
    """RFC 3533: a page is 27 bytes, a table of segment lengths (its size is byte 26) and the segments."""
    # A page has at most 65,307 bytes, so the last one starts in here.
    raw.seek(max(0, size - 65307))
    tail = raw.read()
    page = tail.rfind(b"OggS\0")
    if page < 0:
        return 0
    table_end = page + 27 + (tail[page + 26] if page + 26 < len(tail) else 0)
    return max(0, table_end + sum(tail[page + 27 : table_end]) - len(tail))
