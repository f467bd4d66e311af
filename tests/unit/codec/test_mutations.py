"""Files altered by chance, and by hand with right checksums: they are refused, or decode to the right samples."""

import struct
import tracemalloc
import zlib
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from codec_models import music, small
from packed import pack, unpack

from stereo_sashimi.codec import pcm_files as files
from stereo_sashimi.codec.coding import decode, encode
from stereo_sashimi.codec.container import CONSTANT, MAX_ENVELOPE, RAW, CodecError, Part

FRAMES, SEGMENT = 300, 64


@pytest.fixture(scope="module")
def stereo():
    return small("stereo-16-dml-coupled")


@pytest.fixture(scope="module")
def pcm(stereo):
    return music(FRAMES, stereo.spec)


@pytest.fixture(scope="module")
def coded(stereo, pcm) -> bytes:
    return encode(stereo, pcm, segment_frames=SEGMENT)


@pytest.fixture(scope="module")
def enveloped(coded) -> bytes:
    header, segments, _ = unpack(coded)
    content = zlib.compress(struct.pack("<?I", False, 44) + bytes(range(44)) + b"LIST of titles")
    return pack(replace(header, envelope=len(content)), segments, content)


def mutate(data: bytearray, at: int, size: int, rng: np.random.Generator) -> None:
    """Change, insert, delete, exchange or repeat some bytes, or cut the file off."""
    part, other = data[at : at + size], int(rng.integers(len(data)))
    match int(rng.integers(8)):
        case 0:
            data[at] ^= 1 << int(rng.integers(8))
        case 1:
            data[at] = int(rng.integers(256))
        case 2:
            data[at:at] = rng.bytes(size)
        case 3:
            del data[at : at + size]
        case 4:
            data[at : at + size], data[other : other + size] = data[other : other + size], part
        case 5:
            del data[at:]
        case 6:
            data[at : at + size] = bytes(len(part))
        case 7:
            data[at:at] = part


@pytest.mark.parametrize("which", ["coded", "enveloped"])
def test_thousands_of_mutations_are_refused_or_do_no_harm(which, stereo, pcm, request):
    original, outcomes = request.getfixturevalue(which), Counter()
    for seed in range(1500):
        rng = np.random.default_rng([seed, len(which)])
        data = bytearray(original)
        for _ in range(int(rng.integers(1, 4))):
            if data:
                # Half of them in the header and the table, where a file has its structure.
                most = len(data) if rng.integers(2) else min(len(data), 550)
                size = min(int(rng.integers(1, 65)), max(1, len(data) // 2))
                mutate(data, int(rng.integers(most)), size, rng)
        try:
            header, segments, envelope = unpack(bytes(data), "song")
            outcome = "the same" if data == original else "another one"
            # Samples come of segments and header alone; what equals the original decodes as it does.
            if outcome == "another one" or outcome not in outcomes:
                assert np.array_equal(decode(stereo, bytes(data), name="song"), pcm)
                assert (header, segments, envelope) == unpack(original)
            outcomes[outcome] += 1
        except CodecError as error:
            outcomes["refused" if str(error).startswith("song ") else "refused without a name"] += 1
    assert set(outcomes) <= {"refused", "the same"}
    assert outcomes.total() == 1500
    assert outcomes["refused"] > 1470


# From here on every checksum of the container is right.


def changed(coded: bytes, changes: dict) -> bytes:
    """The file with another header."""
    header, segments, _ = unpack(coded)
    return pack(replace(header, **changes), segments)


def flipped(data: bytes, at: int, bit: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


OTHER = {
    "one bit": lambda data, rng: flipped(data, int(rng.integers(len(data) - 12)), int(rng.integers(8))),
    "noise": lambda data, rng: rng.bytes(len(data)),
    "cut off": lambda data, rng: data[: -12 * int(rng.integers(1, len(data) // 12))],
    "extremes": lambda data, rng: rng.choice(np.array([0, 255], np.uint8), len(data)).tobytes(),
    "zeros": lambda data, rng: bytes(40),
    "ones": lambda data, rng: b"\xff" * 40,
    "no bytes": lambda data, rng: b"",
}


@pytest.mark.parametrize("kind", OTHER)
def test_other_payloads_do_not_decode(stereo, coded, kind):
    """Checksums that fit do not make the samples right, and words that no encoder wrote are no crash."""
    for seed in range(4):
        rng = np.random.default_rng([seed, len(kind)])
        header, segments, _ = unpack(coded)
        at = int(rng.integers(len(segments)))
        segments[at] = segments[at]._replace(payload=OTHER[kind](segments[at].payload, rng))
        with pytest.raises(CodecError, match=r"does not decode|is no code of this model"):
            decode(stereo, pack(header, segments))


@pytest.mark.parametrize("mode", [RAW, CONSTANT])
def test_stored_samples_are_checked_too(stereo, pcm, coded, mode):
    header, segments, _ = unpack(coded)
    payload = pcm[:SEGMENT].astype("<i2").tobytes()
    if mode == RAW:
        as_pcm = pack(header, [Part(RAW, 0, payload, segments[0].crc), *segments[1:]])
        assert np.array_equal(decode(stereo, as_pcm), pcm)
    other = Part(mode, 0, b"\1" + payload[1:] if mode == RAW else payload[:4], segments[0].crc)
    with pytest.raises(CodecError, match="segment 0 does not decode to what was coded"):
        decode(stereo, pack(header, [other, *segments[1:]]))


def test_only_the_whole_proves_the_order_of_segments(stereo, pcm, coded):
    header, segments, _ = unpack(coded)
    swapped = pack(header, [segments[1], segments[0], *segments[2:]])
    # A part proves its own segments and no more, docs/codec.md says: nothing in the file ties them to their places.
    part = decode(stereo, swapped, frames=SEGMENT)
    assert np.array_equal(part, pcm[SEGMENT : 2 * SEGMENT])
    with pytest.raises(CodecError, match="does not decode to the samples that were coded"):
        decode(stereo, swapped)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": "0" * 32}, r"was coded with another model \(SHA-256 of its weights 000000000000\.\.\)"),
        ({"weights": ""}, "was coded with another model"),
        ({"probe": "0" * 32}, "cannot be decoded here"),
        ({"pcm": "0" * 64}, "does not decode to the samples"),
        ({"frames": FRAMES + 1}, "does not decode"),
        ({"frames": 0}, "damaged"),
        ({"segment_frames": SEGMENT + 1}, "does not decode"),
        ({"segment_frames": 1 << 20}, "damaged"),
        ({"envelope": 4}, "damaged"),
        ({"n_channels": 1}, "was coded with another model"),
        ({"n_channels": 3}, "ends early|table of segments"),
        # More than is held in memory.
        ({"n_channels": 255, "segment_frames": 1 << 20}, "segment_frames of 255 channels must be 1 to 131586; got 10"),
        ({"bits": 8, "n_channels": 1}, "was coded with another model"),
    ],
)
def test_other_headers_do_not_decode(stereo, pcm, coded, changes, message):
    # These two do not touch the samples.
    assert np.array_equal(decode(stereo, changed(coded, {"package": "9.9", "sample_rate": 8000})), pcm)
    with pytest.raises(CodecError, match=message):
        decode(stereo, changed(coded, changes))


HEAD = struct.pack("<?I", False, 44) + bytes(44)
WHOLE = zlib.compress(HEAD + b"tail")
SPOILED = {
    "nothing that was compressed": lambda: b"RIFF....WAVE",
    "cut off": lambda: WHOLE[:-1],
    "one byte more": lambda: WHOLE + b"\0",
    "another checksum": lambda: WHOLE[:-1] + bytes([WHOLE[-1] ^ 1]),
    "no length": lambda: zlib.compress(b"\1\2"),
    "a length of one more": lambda: zlib.compress(struct.pack("<?I", False, 45) + bytes(44)),
    "a length without end": lambda: zlib.compress(struct.pack("<?I", False, 2**32 - 1) + bytes(44)),
    "one byte too many": lambda: zlib.compress(HEAD + bytes(MAX_ENVELOPE - 44 + 1)),
    "a bomb": lambda: zlib.compress(HEAD + bytes(1 << 28), 1),
}


@pytest.mark.parametrize("make", SPOILED.values(), ids=SPOILED)
def test_a_spoiled_envelope_writes_nothing(stereo, pcm, coded, tmp_path, make):
    header, segments, _ = unpack(coded)
    spoiled = make()
    data = pack(replace(header, container="wav", envelope=len(spoiled)), segments, spoiled)
    (header, _, envelope), samples = unpack(data), decode(stereo, data)
    assert np.array_equal(samples, pcm)
    tracemalloc.start()
    try:
        with pytest.raises(CodecError, match=r"song is damaged: the header of its audio file"):
            files.write(tmp_path / "song.wav", [samples], header, envelope, "song")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * MAX_ENVELOPE
    assert list(tmp_path.iterdir()) == []
