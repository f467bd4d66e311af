"""encode and decode: every kind of model and recording comes back; lanes, threads and processes change nothing."""

import subprocess
import sys

import constriction
import numpy as np
import pytest
import torch
from codec_models import CASES, music, small

from stereo_sashimi.codec import coding as compress
from stereo_sashimi.codec.batch_coder import CELLS, FAMILY
from stereo_sashimi.codec.coding import decode, encode
from stereo_sashimi.codec.container import CONSTANT, MODEL, RAW, CodecError, pack, unpack
from stereo_sashimi.models.exported import save


def modes(data: bytes) -> list[int]:
    return [segment.mode for segment in unpack(data)[1]]


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
    assert sum(told) == len(pcm)


@pytest.mark.parametrize("frames", [0, 1, 2, 69, 70, 71])
def test_any_length(stereo, frames):
    pcm = music(frames, stereo.spec)
    assert np.array_equal(decode(stereo, encode(stereo, pcm, segment_frames=70)), pcm)


def test_silence_and_constants_are_one_frame(stereo):
    pcm = np.repeat(np.array([[0, 0], [-32768, 32767]], np.int16), 100, axis=0)
    data = encode(stereo, pcm, segment_frames=50)
    assert modes(data) == [CONSTANT] * 4
    assert np.array_equal(decode(stereo, data), pcm)


def test_where_the_model_loses_pcm_is_stored(stereo):
    pcm = np.random.default_rng(0).integers(-32768, 32768, (200, 2)).astype(np.int16)
    data = encode(stereo, pcm, segment_frames=100)
    assert set(modes(data)) <= {RAW, MODEL}
    assert len(data) < pcm.nbytes + 700
    loud = np.where(np.arange(400)[:, None] % 2, 32767, -32768) * np.ones((1, 2), int)
    data = encode(stereo, loud.astype(np.int16))
    assert np.array_equal(decode(stereo, data), loud)


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
    asked, original = [], compress.BatchCoder.decode

    def watched(self, words, lengths, on_frames=None):
        asked.extend(words)
        return original(self, words, lengths, on_frames)

    monkeypatch.setattr(compress.BatchCoder, "decode", watched)
    assert np.array_equal(decode(stereo, data, first=95, frames=50), pcm[95:145])
    payloads = [segment.payload for segment in unpack(data)[1]]
    assert [word.astype("<u4").tobytes() for word in asked] == payloads[2:4]
    assert decode(stereo, data, first=400, frames=0).shape == (0, 2)
    with pytest.raises(CodecError, match="frames 390 to 410 were asked for"):
        decode(stereo, data, first=390, frames=20)


@pytest.mark.slow
def test_another_process_decodes(stereo, tmp_path):
    pcm = music(300, stereo.spec)
    save(stereo, tmp_path / "model")
    (tmp_path / "coded.ssc").write_bytes(encode(stereo, pcm, segment_frames=64))
    program = (
        "import sys, stereo_sashimi, torch; torch.set_num_threads(1); folder = sys.argv[1];"
        "pcm = stereo_sashimi.decode(stereo_sashimi.load(folder + '/model'), open(folder + '/coded.ssc', 'rb').read());"
        "open(folder + '/pcm', 'wb').write(pcm.astype('<i2').tobytes())"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
    assert (tmp_path / "pcm").read_bytes() == pcm.astype("<i2").tobytes()


def test_wrong_recordings_are_refused(stereo):
    with pytest.raises(CodecError, match=r"this model codes stereo, int16 \(frames, 2\); got \(9, 1\)"):
        encode(stereo, np.zeros((9, 1), np.int16))
    with pytest.raises(CodecError, match="PCM is a numpy array of int16; got float32"):
        encode(stereo, np.zeros((9, 2), np.float32))
    with pytest.raises(CodecError, match="this model codes 8 bits, and the recording has more"):
        encode(small("mono-8-dml"), np.ones((9, 1), np.int16))
    for key, value in (("lanes", 0), ("lanes", 257), ("segment_frames", 0), ("segment_frames", 2**21)):
        with pytest.raises(CodecError, match=f"{key} must be an integer from 1 to"):
            encode(stereo, np.zeros((9, 2), np.int16), **{key: value})


@pytest.mark.parametrize(
    ("field", "value"), [("quantization", "mu-law"), ("normalize", "minmax"), ("normalize", "peak")]
)
def test_models_of_other_codes_are_refused(field, value):
    model = small("mono-8-categorical")
    object.__setattr__(model.spec, field, value)
    with pytest.raises(CodecError, match=f"{value}.*from which PCM does not come back"):
        encode(model, np.zeros((9, 1), np.int16))


def test_another_model_is_refused(stereo):
    data = encode(stereo, music(100, stereo.spec))
    other = small("stereo-16-dml-coupled")
    with torch.no_grad():
        other.backbone.norm.bias[0] += 1e-6
    with pytest.raises(CodecError, match="was coded with another model"):
        decode(other, data)
    with pytest.raises(ValueError, match=r"engine=compiled computes in float32"):
        encode(small("mono-8-dml").double(), np.zeros((9, 1), np.int16))


def test_a_machine_that_computes_otherwise_is_refused(stereo, monkeypatch):
    data = encode(stereo, music(100, stereo.spec))
    monkeypatch.setattr(compress.BatchCoder, "decode", None)
    monkeypatch.setattr(compress, "probe", lambda coder: "0" * 32)
    with pytest.raises(CodecError, match="cannot be decoded here"):
        decode(stereo, data)


def test_the_probe_sees_the_last_digit_of_the_weights(stereo):
    coder = compress.coder_for(stereo, 2)
    first = compress.probe(coder)
    assert compress.probe(compress.coder_for(stereo, 5)) == first
    weights = coder.engine.program.weights
    weights[:] = np.nextafter(weights, 2 * weights)
    assert compress.probe(coder) != first


def test_a_wrong_decoder_is_noticed(stereo, monkeypatch):
    """An encoder that verifies does not write what would not come back."""
    original = compress.BatchCoder.decode

    def wrong(self, words, lengths, on_frames=None):
        out = original(self, words, lengths, on_frames)
        out[0][0, 0] ^= 1
        return out

    monkeypatch.setattr(compress.BatchCoder, "decode", wrong)
    with pytest.raises(CodecError, match="does not decode to itself"):
        encode(stereo, music(100, stereo.spec))
    data = encode(stereo, music(100, stereo.spec), verify=False)
    with pytest.raises(CodecError, match="segment 0 does not decode to what was coded"):
        decode(stereo, data)


def test_a_payload_that_no_encoder_wrote_is_no_crash(stereo):
    """Checksums that fit do not make the samples right."""
    header, segments, _ = unpack(encode(stereo, music(100, stereo.spec)))
    for payload in (b"", b"\xff" * 40, b"\0" * 40, segments[0].payload[:-4]):
        with pytest.raises(CodecError, match=r"segment (0 does not decode|is no code of this model)"):
            decode(stereo, pack(header, [segments[0]._replace(payload=payload)]))


def test_the_range_coder_takes_integers_as_they_are():
    """`FAMILY`: cell j of weights that sum to 2**24 - 256 has the probability (1 + w_j) / 2**24."""
    weights = np.zeros((1, CELLS), np.float32)
    weights[0, 3], weights[0, 200] = 2**23 - 256, 2**23
    encoder = constriction.stream.queue.RangeEncoder()
    symbols = np.array([3, 200, 0, 255, 17] * 400, np.int32)
    encoder.encode(symbols, FAMILY, np.repeat(weights, len(symbols), 0))
    ideal = -np.log2((weights[0, symbols].astype(np.float64) + 1) / 2**24).sum()
    assert abs(encoder.num_bits() - ideal) < 64


def test_the_rate_is_kept_and_none_is_the_models(stereo):
    pcm = music(80, stereo.spec)
    assert unpack(encode(stereo, pcm, sample_rate=8000))[0].spec.sample_rate == 8000
    assert unpack(encode(stereo, pcm))[0].spec.sample_rate == 44100
    with pytest.raises(ValueError, match="sample_rate must be at least 1 Hz; got 0"):
        encode(stereo, pcm, sample_rate=0)
