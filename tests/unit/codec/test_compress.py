"""encode and decode: every kind of model and recording comes back; lanes, threads and processes change nothing."""

import hashlib
import tracemalloc
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from codec_models import CASES, music, small
from packed import pack, reader, unpack

from limits import memory_of_at_most
from stereo_sashimi.codec.batch_coder import BatchCoder
from stereo_sashimi.codec.coders import Coders
from stereo_sashimi.codec.coding import decode, decode_blocks, encode
from stereo_sashimi.codec.container import CONSTANT, MAX_ENVELOPE, MODEL, RAW, CodecError, Part


def modes(data: bytes) -> set[int]:
    return {segment.mode for segment in unpack(data)[1]}


@pytest.fixture(scope="module")
def stereo():
    return small("stereo-16-dml-coupled")


@pytest.mark.parametrize("case", CASES)
def test_round_trip(case):
    model = small(case)
    pcm, told = music(40 if "16-categorical" in case else 300, model.spec), []
    data = encode(model, pcm, segment_frames=70, lanes=3, on_frames=told.append)
    back = decode(model, data)
    assert back.dtype == np.int16
    assert np.array_equal(back, pcm)
    assert MODEL in modes(data)
    header, parts, envelope = unpack(data)
    spec = (header.sample_rate, header.n_channels, header.bits)
    assert spec == (model.spec.sample_rate, model.spec.n_channels, model.spec.bits)
    assert pack(header, parts, envelope) == data
    assert sum(told) == len(pcm)


LOUD = np.where(np.arange(400)[:, None] % 2, 32767, -32768).repeat(2, axis=1)
NOISE = np.random.default_rng(0).integers(-32768, 32768, (200, 2))


CONSTANTS = np.repeat([[0, 0], [-32768, 32767]], 140, axis=0)


@pytest.mark.parametrize(
    ("pcm", "allowed"), [(CONSTANTS, {CONSTANT}), (LOUD, {RAW, MODEL}), (NOISE, {RAW, MODEL})], ids=len
)
def test_each_segment_is_stored_in_the_shortest_way(stereo, pcm, allowed):
    pcm = pcm.astype(np.int16)
    data = encode(stereo, pcm, segment_frames=70)
    assert np.array_equal(decode(stereo, data), pcm)
    assert modes(data) <= allowed
    assert len(data) < 700 + (0 if allowed == {CONSTANT} else pcm.nbytes)


def test_any_length(stereo):
    for pcm in (music(frames, stereo.spec) for frames in (0, 1, 2, 69, 70, 71)):
        assert np.array_equal(decode(stereo, encode(stereo, pcm, segment_frames=70)), pcm), len(pcm)


def test_neither_lanes_nor_threads_change_a_bit(stereo):
    pcm, threads = music(400, stereo.spec), torch.get_num_threads()
    payloads = []
    try:
        for lanes, count in ((1, 1), (7, 2), (32, 1), (32, 2)):
            torch.set_num_threads(count)
            data = encode(stereo, pcm, segment_frames=40, lanes=lanes)
            payloads.append(unpack(data)[1])
            torch.set_num_threads(3 - count)
            assert np.array_equal(decode(stereo, data), pcm)
    finally:
        torch.set_num_threads(threads)
    assert all(payload == payloads[0] for payload in payloads)


def test_a_part_decodes_alone(stereo, monkeypatch):
    pcm = music(400, stereo.spec)
    data = encode(stereo, pcm, segment_frames=40)
    asked, original = [], BatchCoder.decode

    def watched(self, words, lengths, on_frames=None):
        asked.extend(words)
        return original(self, words, lengths, on_frames)

    monkeypatch.setattr(BatchCoder, "decode", watched)
    assert np.array_equal(decode(stereo, data, first=95, frames=50), pcm[95:145])
    payloads = [segment.payload for segment in unpack(data)[1]]
    assert asked == payloads[2:4]
    assert [len(block) for block in decode_blocks(stereo, reader(data), first=95, frames=50)] == [25, 25]
    assert decode(stereo, data, first=400, frames=0).shape == (0, 2)
    with pytest.raises(CodecError, match="frames 390 to 410 were asked for"):
        decode(stereo, data, first=390, frames=20)


def claiming(model, frames: int) -> bytes:
    """A file of 20 KB at most, with right checksums of its segments: so many frames of silence."""
    size = 1 << 20
    header, (segment,), _ = unpack(encode(model, np.zeros((size, 2), np.int16), segment_frames=size, verify=False))
    last = (frames - 1) % size + 1
    segments = [segment] * ((frames - 1) // size) + [Part(CONSTANT, 0, bytes(4), zlib.crc32(bytes(4 * last)))]
    digest = hashlib.sha256(bytes(4 * frames)).hexdigest() if frames < 1 << 28 else header.pcm
    return pack(replace(header, frames=frames, pcm=digest), segments)


def test_a_long_claim_is_decoded_in_bounded_memory(stereo):
    frames, told = (40 << 20) + 5, []
    data = claiming(stereo, frames)
    assert len(data) < 2000
    decoded, kept = 0, b""
    tracemalloc.start()
    try:
        for block in decode_blocks(stereo, reader(data), on_frames=told.append):
            decoded, kept = decoded + len(block), block[:1].tobytes()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (decoded, sum(told), kept) == (frames, frames, bytes(8))
    # The samples are 320 MiB; what is decoded at once 64 MiB.
    assert peak < 128 << 20


def test_more_frames_than_memory_are_refused(stereo):
    data = claiming(stereo, 1 << 32)
    with memory_of_at_most(1 << 30):
        with pytest.raises(CodecError, match="4294967296 frames of song do not fit into memory"):
            decode(stereo, data, name="song")
        assert decode(stereo, data, first=(1 << 32) - 5, frames=5).shape == (5, 2)


STEREO = np.zeros((9, 2), np.int16)


@pytest.mark.parametrize(
    ("pcm", "options", "message"),
    [
        (STEREO[:, 0], {}, r"PCM has the shape \(frames, channels\), 1 to 255; got \(9,\)"),
        (STEREO.astype(np.float32), {}, "PCM is a numpy array of int16, of 24 bits int32; got float32"),
        (STEREO, {"bits": 24}, "PCM is a numpy array of int16, of 24 bits int32; got int16"),
        (STEREO.astype(np.int32) + 2**23, {"bits": 24}, r"samples of 24 bits lie between -2\*\*23 and 2\*\*23 - 1"),
        (STEREO + 1, {"bits": 8}, "bits=8, and the recording has more"),
        (STEREO, {"bits": 12}, "bits must be 8, 16 or 24; got 12"),
        (STEREO, {"segment_frames": 2**21}, "segment_frames must be an integer from 1 to"),
        (STEREO, {"sample_rate": 0}, "a recording has 1 to 4294967295 Hz; got 0"),
        (STEREO, {"envelope": bytes(MAX_ENVELOPE + 1)}, f"an envelope has at most {MAX_ENVELOPE} bytes"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_what_cannot_be_coded_is_refused(stereo, pcm, options, message):
    with pytest.raises(ValueError, match=message):
        encode(stereo, pcm, **options)


@pytest.mark.parametrize(
    ("field", "value"), [("quantization", "mu-law"), ("normalize", "minmax"), ("normalize", "peak")]
)
def test_models_of_other_codes_are_refused(field, value):
    model = small("mono-8-categorical")
    object.__setattr__(model.spec, field, value)
    with pytest.raises(CodecError, match=f"{value}.*from which PCM does not come back"):
        encode(model, np.zeros((9, 1), np.int16))


def test_other_models_are_refused(stereo):
    data = encode(stereo, music(100, stereo.spec))
    other = small("stereo-16-dml-coupled")
    with torch.no_grad():
        other.backbone.norm.bias[0] += 1e-6
    with pytest.raises(CodecError, match="was coded with another model"):
        decode(other, data)
    with pytest.raises(CodecError, match="bits=8, and the recording has more"):
        encode(small("mono-8-dml"), np.ones((9, 1), np.int16))
    with pytest.raises(CodecError, match="was trained on mono"):
        encode(small("mono-16-experts-alone"), STEREO)
    with pytest.raises(ValueError, match=r"engine=compiled computes in float32"):
        encode(small("mono-8-dml").double(), np.zeros((9, 1), np.int16))


def test_a_machine_that_computes_otherwise_is_refused(stereo, monkeypatch):
    data = encode(stereo, music(100, stereo.spec))
    monkeypatch.setattr(BatchCoder, "decode", None)
    monkeypatch.setattr(Coders, "probe", "0" * 32)
    with pytest.raises(CodecError, match="cannot be decoded here"):
        decode(stereo, data)


def test_the_probe_is_computed_once_and_sees_the_last_digit_of_the_weights(stereo, monkeypatch):
    first = (coders := Coders(stereo, 16, 2, 2)).probe
    with monkeypatch.context() as patch:
        patch.setattr("stereo_sashimi.codec.coders.probe", None)
        assert Coders(stereo, 16, 2, 5).probe == first
    weights = coders[2].engine.program.weights
    weights[:] = np.nextafter(weights, 2 * weights)
    assert coders.probe != first


def test_a_wrong_decoder_is_noticed(stereo, monkeypatch):
    """An encoder that verifies does not write what would not come back."""
    original = BatchCoder.decode

    def wrong(self, words, lengths, on_frames=None):
        out = original(self, words, lengths, on_frames)
        out[0][0, 0] ^= 1
        return out

    monkeypatch.setattr(BatchCoder, "decode", wrong)
    with pytest.raises(CodecError, match="does not decode to itself"):
        encode(stereo, music(100, stereo.spec))
    data = encode(stereo, music(100, stereo.spec), verify=False)
    with pytest.raises(CodecError, match="segment 0 does not decode to what was coded"):
        decode(stereo, data)


def test_experts_are_let_go_on_learning():
    pcm = music(20_000, small("mono-16-experts-alone").spec)
    header, parts, _ = unpack(encode(small("mono-16-experts-alone"), pcm, verify=False))
    assert (header.segment_frames, len(parts)) == (20_000, 1)
    assert unpack(encode(small("mono-16-dml"), pcm, verify=False))[0].segment_frames == 2**14


@pytest.mark.parametrize(
    ("frames", "n_channels", "lanes", "lengths"),
    [
        (0, 2, 2, []),
        (1, 2, 2, [1]),
        # One of more than the shortest, rather than that and a few frames.
        (530_000, 2, 2, [530_000]),
        (1_058_401, 2, 2, [529_201, 529_200]),
        (1_058_400, 2, 1, [529_200, 529_200]),
        # 60 s: the second thread has a fourth segment to do.
        (2_646_000, 2, 2, [661_500] * 4),
        (300_000, 255, 2, [131_586, 131_586, 36_828]),
    ],
)
def test_no_thread_waits_for_a_rest_of_a_recording(frames, n_channels, lanes, lengths):
    pcm = np.broadcast_to(np.zeros((1, n_channels), np.int16), (frames, n_channels))
    data = encode(small("stereo-16-experts-alone"), pcm, lanes=lanes, verify=False)
    header = unpack(data)[0]
    assert [header.length(i) for i in range(header.n_segments)] == lengths


@pytest.mark.parametrize("bits", [8, 16, 24])
@pytest.mark.parametrize("channels", [1, 2, 3, 6])
def test_experts_alone_code_any_format(bits, channels):
    """By one stereo model: channels are pairs and a single one."""
    model = small("stereo-16-experts-alone")
    rng = np.random.default_rng(bits)
    pcm = np.cumsum(rng.normal(0, 2 ** (bits - 9), (150, channels)), 0).astype(np.int32)
    if bits == 24:
        # Low bits that are zero, as in 16 bits that were stored as 24.
        pcm[:, :2] &= ~255
    pcm = pcm if bits == 24 else (pcm << 16 - bits).astype(np.int16)
    data = encode(model, pcm, bits=bits, segment_frames=64, sample_rate=96000)
    back = decode(model, data)
    assert back.dtype == pcm.dtype
    assert np.array_equal(back, pcm)
    header, parts, _ = unpack(data)
    assert (header.n_channels, header.bits, header.sample_rate) == (channels, bits, 96000)
    assert len(parts) == 3 * -(-channels // 2)
    if bits == 24:
        assert parts[0].shift == 8
