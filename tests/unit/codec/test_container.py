"""The bytes of an .ssc file: what is packed is unpacked, and every part of it is checked before memory is taken."""

import io
import json
import struct
import tracemalloc
import zlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packed import pack, unpack

from stereo_sashimi.codec.container import (
    CONSTANT,
    MAGIC,
    MAX_ENVELOPE,
    MAX_FRAMES,
    MAX_SEGMENT_FRAMES,
    MODEL,
    RAW,
    CodecError,
    FileHeader,
    Part,
    Writer,
)

HEADER = FileHeader(
    *(3, "wav", 44100, 3, 16, 25, 10, "default-1", "a" * 32, "b" * 32, "c" * 64, 5, "0.1.0"),
)
# 10, 10 and 5 frames of a pair of channels, 4 bytes each, and of a single one.
PARTS = [
    *(Part(MODEL, 0, b"words 12 ok.", 1), Part(RAW, 0, bytes(range(20)), 4)),
    *(Part(CONSTANT, 0, b"LlRr", 2), Part(MODEL, 7, b"", 5)),
    *(Part(RAW, 0, bytes(range(20)), 3), Part(CONSTANT, 0, b"Cc", 6)),
]
ENVELOPE = b"RIFF!"
FILE = pack(HEADER, PARTS, ENVELOPE)
ENTRY = 14
TEXT = len(MAGIC) + 8
TABLE = TEXT + struct.unpack_from("<I", FILE, len(MAGIC))[0]


def with_text(text: bytes, rest: bytes = FILE[TABLE:]) -> bytes:
    """A file with this header and its right checksum."""
    return MAGIC + struct.pack("<II", len(text), zlib.crc32(text)) + text + rest


def fields(**changes: object) -> bytes:
    """The header's JSON with other values; None leaves the field out."""
    plain = json.loads(FILE[TEXT:TABLE]) | changes
    return json.dumps({key: value for key, value in plain.items() if value is not None}).encode()


def flipped(at: int) -> bytes:
    return FILE[:at] + bytes([FILE[at] ^ 1]) + FILE[at + 1 :]


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_what_is_written_is_read(data):
    draw = data.draw
    channels, bits = draw(st.integers(1, 5)), draw(st.sampled_from([8, 16, 24]))
    frames, length, envelope = draw(st.integers(0, 100)), draw(st.integers(1, 40)), draw(st.binary(max_size=40))
    text = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40)
    numbers = (
        3,
        draw(st.sampled_from(["pcm", "flac"])),
        draw(st.integers(1, 2**32 - 1)),
        channels,
        bits,
        frames,
        length,
    )
    header = FileHeader(*numbers, *(draw(text) for _ in range(3)), "d" * 64, len(envelope), draw(text))
    parts = []
    for i in range(header.n_segments):
        for pair in header.pairs:
            frame = len(pair) * bits // 8
            raw = header.length(i) * frame
            mode, shift = draw(st.sampled_from([MODEL, RAW, CONSTANT])), draw(st.integers(0, bits - 1))
            size = {MODEL: draw(st.integers(0, raw - 1)), RAW: raw, CONSTANT: frame}[mode]
            payload = draw(st.binary(min_size=size, max_size=size))
            parts.append(Part(mode, shift, payload, draw(st.integers(0, 2**32 - 1))))
    file = io.BytesIO()
    writer = Writer(file, replace(header, pcm="", envelope=0), envelope)
    for part in parts:
        writer.add(part)
    writer.close("d" * 64)
    assert file.getvalue() == pack(header, parts, envelope)
    assert writer.size == len(file.getvalue())
    assert unpack(file.getvalue()) == (header, parts, envelope)


def test_segments_cover_the_recording():
    assert [HEADER.length(i) for i in range(HEADER.n_segments)] == [10, 10, 5]
    assert [replace(HEADER, frames=frames).n_segments for frames in (20, 0)] == [2, 0]
    assert HEADER.pcm_bytes == 150
    assert HEADER.pairs == [range(2), range(2, 3)]


def test_every_byte_and_bit_counts():
    """A file that was cut off anywhere, and one with any bit turned."""
    turned = (FILE[:at] + bytes([FILE[at] ^ 1 << bit]) + FILE[at + 1 :] for at in range(len(FILE)) for bit in range(8))
    for data in [*(FILE[:end] for end in range(len(FILE))), *turned]:
        with pytest.raises(CodecError, match=r"^song\.ssc "):
            unpack(data, "song.ssc")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is no .ssc file"),
        (b"RIFF" + FILE[4:], "is no .ssc file"),
        (FILE.replace(b"\r\n", b"\n"), "is no .ssc file"),
        (flipped(TEXT), "is damaged: its header"),
        (flipped(len(MAGIC) + 4), "is damaged: its header"),
        (MAGIC + struct.pack("<II", 2**32 - 1, 0), "is damaged: its header"),
        (with_text(b" " * 2**17), "is damaged: its header"),
        (flipped(TABLE), "is damaged: its table of segments"),
        (flipped(TABLE + 6 * ENTRY + 4), "is damaged: its table of segments"),
        (flipped(len(FILE) - 1), "is damaged: its segment 2"),
        (FILE + b"\0", "has another length than its table says"),
        (FILE[:-1], "has another length than its table says"),
        (FILE[: TABLE + 5], "ends early"),
    ],
)
def test_damage_is_named(data, message):
    with pytest.raises(CodecError, match=f"^song {message}"):
        unpack(data, "song")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (fields(version=4, novelty=[1]), "has version 4 of the format"),
        (fields(version=1, novelty=[1]), "has version 1 of the format, written by a development version"),
        (fields(version=2), "has version 2 of the format, written by a development version"),
        (fields(version=0), "version must be 3 to 3; got 0"),
        (fields(novelty=1), "Unknown key header.novelty"),
        (fields(probe=None), "lacks the field 'probe'"),
        (fields(frames=-1), f"frames must be 0 to {MAX_FRAMES}; got -1"),
        (fields(frames=10**400), "frames must be an integer; got an integer of"),
        (fields(segment_frames=MAX_SEGMENT_FRAMES + 1), "segment_frames must be 1 to"),
        (fields(envelope=MAX_ENVELOPE + 1), "envelope must be 0 to"),
        (fields(pcm=["a"]), "pcm must be text"),
        (fields(package="0\x1b[2J"), "package is no short text of printable characters"),
        (fields(weights="\ud800"), "weights is no short text"),
        (fields(probe="a" * 101), "probe is no short text"),
        (fields(n_channels=256), "n_channels must be 1 to"),
        (fields(sample_rate=0), "sample_rate must be 1 to"),
        (fields(bits=12), "bits must be one of 8, 16, 24"),
        (fields(container="mp3"), "container must be one of pcm, wav, aiff, flac"),
        (fields(model="\n"), "model is no short text"),
        (fields(kind="Part"), "kind must be one of FileHeader"),
        (b"", "is not valid"),
        (b"null", "must be a mapping"),
        (b"\xff\xfe\xfd", "is not valid"),
        (b"[" * 60000, "is not valid"),
        (b'{"version": ' + b"9" * 5000 + b"}", "is not valid"),
    ],
    ids=lambda value: value[:60] if isinstance(value, str) else "",
)
def test_a_header_that_means_nothing_is_refused(text, message):
    with pytest.raises(CodecError, match=message) as refused:
        unpack(with_text(text), "song.ssc")
    assert str(refused.value).startswith("song.ssc has ")
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize(
    ("mode", "shift", "payload"),
    [
        *((MODEL, 0, size) for size in (40, 41)),
        *((RAW, 0, size) for size in (0, 36, 44)),
        *((CONSTANT, 0, size) for size in (0, 8)),
        *((3, 0, 4), (255, 0, 4), (MODEL, 16, 12), (MODEL, 255, 12)),
    ],
)
def test_a_payload_has_the_size_of_its_mode(mode, shift, payload):
    with pytest.raises(CodecError, match=r"^song is damaged: its segment 0"):
        unpack(pack(HEADER, [Part(mode, shift, bytes(payload), 1), *PARTS[1:]], ENVELOPE), "song")


def test_one_part_more_or_less_is_refused():
    for parts in ([], PARTS[:5], [*PARTS, PARTS[1]]):
        with pytest.raises(CodecError, match=r"^song "):
            unpack(pack(HEADER, parts, ENVELOPE), "song")


TABLE_OF_HUGE = b"".join(struct.pack("<BBIII", RAW, 0, 2**32 - 1, 0, 0) for _ in range(6))
CHECK = struct.pack("<I", zlib.crc32(ENVELOPE, zlib.crc32(TABLE_OF_HUGE)))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (with_text(fields(frames=MAX_FRAMES)), "ends early"),
        (with_text(fields(frames=MAX_FRAMES, segment_frames=1)), "ends early"),
        (with_text(fields(frames=MAX_FRAMES, segment_frames=MAX_SEGMENT_FRAMES)), "ends early"),
        (with_text(fields(envelope=MAX_ENVELOPE)), "ends early"),
        (FILE[:TABLE] + TABLE_OF_HUGE + CHECK + ENVELOPE, "has another length than its table says"),
    ],
    ids=["frames", "segments", "few segments", "envelope", "payloads"],
)
def test_claims_take_no_memory(data, message):
    tracemalloc.start()
    try:
        with pytest.raises(CodecError, match=message):
            unpack(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20
