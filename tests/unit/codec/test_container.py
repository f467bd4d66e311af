"""The bytes of an .ssc file: what is packed is unpacked, and every part of it is checked before memory is taken."""

import json
import struct
import tracemalloc
import zlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    Segment,
    pack,
    read_header,
    unpack,
)
from stereo_sashimi.spec import AudioSpec

HEADER = FileHeader(
    *(2, AudioSpec(44100, 2, 16), 25, 10, "a" * 64, "b" * 32, "c" * 64, 5, "0.1.0"),
)
# 10, 10 and 5 frames of 4 bytes.
SEGMENTS = [Segment(MODEL, b"words 12 ok.", 1), Segment(CONSTANT, b"LlRr", 2), Segment(RAW, bytes(range(20)), 3)]
ENVELOPE = b"RIFF!"
FILE = pack(HEADER, SEGMENTS, ENVELOPE)
ENTRY = 13
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
def test_what_is_packed_is_unpacked(data):
    draw = data.draw
    channels, bits = draw(st.sampled_from([1, 2])), draw(st.sampled_from([8, 16]))
    length, frame = draw(st.integers(1, 40)), channels * bits // 8
    frames, envelope = draw(st.integers(0, 100)), draw(st.binary(max_size=40))
    text = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40)
    numbers = (2, AudioSpec(draw(st.integers(1, 2**40)), channels, bits), frames, length)
    header = FileHeader(*numbers, *(draw(text) for _ in range(3)), len(envelope), draw(text))
    segments = []
    for i in range(header.n_segments):
        raw = header.length(i) * frame
        mode = draw(st.sampled_from([MODEL, RAW, CONSTANT]))
        size = {MODEL: 4 * draw(st.integers(0, (raw - 1) // 4)), RAW: raw, CONSTANT: frame}[mode]
        segments.append(Segment(mode, draw(st.binary(min_size=size, max_size=size)), draw(st.integers(0, 2**32 - 1))))
    packed = pack(header, segments, envelope)
    assert unpack(packed) == (header, segments, envelope)
    assert read_header(packed) == header


def test_segments_cover_the_recording():
    assert [HEADER.length(i) for i in range(HEADER.n_segments)] == [10, 10, 5]
    assert [replace(HEADER, frames=frames).n_segments for frames in (20, 0)] == [2, 0]
    assert HEADER.pcm_bytes == 100


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
        (flipped(len(MAGIC)), "is damaged: its header"),
        (flipped(len(MAGIC) + 4), "is damaged: its header"),
        (MAGIC + struct.pack("<II", 2**32 - 1, 0), "is damaged: its header"),
        (with_text(b" " * 2**17), "is damaged: its header"),
        (flipped(TABLE), "is damaged: its table of segments"),
        (flipped(TABLE + 3 * ENTRY), "is damaged: its table of segments"),
        (flipped(TABLE + 3 * ENTRY + 4), "is damaged: its table of segments"),
        (flipped(len(FILE) - 1), "is damaged: its segment 2"),
        (FILE + b"\0", "has another length than its table says"),
        (FILE[:-1], "has another length than its table says"),
        (FILE[: TABLE + 5], "ends early"),
        (FILE[: TABLE + 3 * ENTRY + 4 + 4], "ends early"),
    ],
)
def test_damage_is_named(data, message):
    with pytest.raises(CodecError, match=f"^song {message}"):
        unpack(data, "song")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (fields(version=3), "has version 3 of the format; this package reads 2"),
        (fields(version=3, novelty=[1]), "has version 3 of the format"),
        (fields(version=1, novelty=[1]), "has version 1 of the format, written by a development version"),
        (fields(version=0), "version must be 2 to 2; got 0"),
        (fields(version=True), "version must be an integer"),
        (fields(version="2"), "version must be an integer"),
        (fields(novelty=1), "Unknown key header.novelty"),
        (fields(probe=None), "lacks the field 'probe'"),
        (fields(frames=1.5), "frames must be an integer"),
        (fields(frames=-1), f"frames must be 0 to {MAX_FRAMES}; got -1"),
        (fields(frames=MAX_FRAMES + 1), "frames must be 0 to"),
        (fields(frames=10**400), "frames must be an integer; got an integer of"),
        (fields(segment_frames=0), "segment_frames must be 1 to"),
        (fields(segment_frames=MAX_SEGMENT_FRAMES + 1), "segment_frames must be 1 to"),
        (fields(envelope=-1), "envelope must be 0 to"),
        (fields(envelope=MAX_ENVELOPE + 1), "envelope must be 0 to"),
        (fields(weights=3), "weights must be text"),
        (fields(pcm=["a"]), "pcm must be text"),
        (fields(package="0\x1b[2J"), "package is no short text of printable characters"),
        (fields(weights="\ud800"), "weights is no short text"),
        (fields(probe="a" * 101), "probe is no short text"),
        (fields(spec=5), "header.spec must be a mapping"),
        (fields(spec={"sample_rate": 44100, "n_channels": 3, "bits": 16}), "n_channels must be 1"),
        (fields(spec={"sample_rate": 0, "n_channels": 2, "bits": 16}), "sample_rate must be at least 1"),
        (fields(spec={"sample_rate": 44100, "n_channels": 2, "bits": 24}), "bits must be 8 or 16"),
        (fields(kind="Segment"), "kind must be one of FileHeader"),
        (b"", "is not valid"),
        (b"null", "must be a mapping"),
        (b"[1]", "must be a mapping"),
        (b"{", "is not valid"),
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
    with pytest.raises(CodecError, match=message):
        read_header(with_text(text))


@pytest.mark.parametrize(
    ("mode", "payload"),
    [
        *((MODEL, size) for size in (13, 40)),
        *((RAW, size) for size in (0, 36, 44)),
        *((CONSTANT, size) for size in (0, 8)),
        *((3, 4), (255, 4)),
    ],
)
def test_a_payload_has_the_size_of_its_mode(mode, payload):
    with pytest.raises(CodecError, match=r"^song is damaged: its segment 0"):
        unpack(pack(HEADER, [Segment(mode, bytes(payload), 1), *SEGMENTS[1:]], ENVELOPE), "song")


def test_one_segment_more_or_less_is_refused():
    for segments in ([], SEGMENTS[:2], [*SEGMENTS, SEGMENTS[1]]):
        with pytest.raises(CodecError, match=r"^song "):
            unpack(pack(HEADER, segments, ENVELOPE), "song")


TABLE_OF_HUGE = b"".join(struct.pack("<BIII", RAW, 2**32 - 1, 0, 0) for _ in range(3))
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
