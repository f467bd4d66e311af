"""WAV and FLAC files through the codec and back: WAV to the byte, FLAC to the sample; everything else is refused."""

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from codec_models import music, small

from stereo_sashimi.audio.io import AudioError, read_pcm, write_pcm
from stereo_sashimi.codec import pcm_files as files
from stereo_sashimi.codec.coding import decode, encode
from stereo_sashimi.codec.container import MAX_ENVELOPE, CodecError, unpack
from stereo_sashimi.spec import AudioSpec

CASES = {(1, 16): "mono-16-dml", (2, 16): "stereo-16-dml-coupled", (1, 8): "mono-8-dml", (2, 8): "stereo-8-dml-coupled"}
FORMATS = pytest.mark.parametrize(("channels", "bits"), CASES)
STEREO = AudioSpec(44100, 2, 16)
GUID = b"\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71"


@pytest.fixture(scope="module")
def models():
    return {spec: small(case) for spec, case in CASES.items()}


def chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def fmt(channels: int, bits: int, rate: int = 44100, kind: int = 1, more: bytes = b"") -> bytes:
    frame = channels * bits // 8
    return chunk(b"fmt ", struct.pack("<HHIIHH", kind, channels, rate, rate * frame, frame, bits) + more)


def riff(*chunks: bytes) -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def payload(pcm: np.ndarray, bits: int) -> bytes:
    return pcm.astype("<i2").tobytes() if bits == 16 else ((pcm.astype(int) >> 8) + 128).astype(np.uint8).tobytes()


def through(models, source: Path, target: Path, channels: int = 2, bits: int = 16) -> bytes:
    """Read, code, decode and write; the coded bytes."""
    model = models[channels, bits]
    recording = files.read(source, model.spec)
    data = encode(
        model, recording.pcm, sample_rate=recording.spec.sample_rate, segment_frames=64, envelope=recording.envelope
    )
    header, _, envelope = unpack(data)
    assert (header.spec, envelope) == (recording.spec, recording.envelope)
    files.write(target, decode(model, data), header.spec, envelope, "song")
    return data


def comes_back(models, folder: Path, content: bytes, channels: int = 2, bits: int = 16) -> bytes:
    (folder / "in.wav").write_bytes(content)
    data = through(models, folder / "in.wav", folder / "out.wav", channels, bits)
    assert (folder / "out.wav").read_bytes() == content
    assert sorted(path.name for path in folder.iterdir()) == ["in.wav", "out.wav"]
    return data


@FORMATS
def test_a_plain_wav_file_comes_back(models, tmp_path, channels, bits):
    spec = AudioSpec(44100, channels, bits)
    for frames in (0, 1, 2, 129):
        pcm = music(frames, spec)
        write_pcm(tmp_path / "in.wav", pcm, 44100, bits=bits)
        assert soundfile.info(tmp_path / "in.wav").subtype == ("PCM_16" if bits == 16 else "PCM_U8")
        assert np.array_equal(files.read(tmp_path / "in.wav", spec).pcm, pcm)
        comes_back(models, tmp_path, (tmp_path / "in.wav").read_bytes(), channels, bits)


@FORMATS
def test_chunks_around_the_samples_come_back(models, tmp_path, channels, bits):
    # 129 frames: an odd number of bytes for mono of 8 bits, with a pad byte behind them.
    pcm = music(129, AudioSpec(44100, channels, bits))
    before = chunk(b"LIST", b"INFO" + chunk(b"ISFT", b"odd.\0")) + chunk(b"junk", b"123")
    after = chunk(b"LIST", b"INFO" + chunk(b"INAM", b"title\0")) + chunk(b"junk", b"123")
    content = riff(fmt(channels, bits), before, chunk(b"data", payload(pcm, bits)), after)
    comes_back(models, tmp_path, content, channels, bits)
    # Of a FLAC file the samples come back, and no chunks.
    through(models, tmp_path / "in.wav", tmp_path / "out.flac", channels, bits)
    assert np.array_equal(read_pcm(tmp_path / "out.flac")[0], pcm)


@FORMATS
def test_extensible_headers_come_back(models, tmp_path, channels, bits):
    pcm = music(70, AudioSpec(44100, channels, bits))
    more = struct.pack("<HHI", 22, bits, channels) + struct.pack("<H", 1) + GUID
    content = riff(fmt(channels, bits, kind=0xFFFE, more=more), chunk(b"data", payload(pcm, bits)))
    comes_back(models, tmp_path, content, channels, bits)
    soundfile.write(tmp_path / "in.wav", pcm, 44100, format="WAVEX", subtype="PCM_16" if bits == 16 else "PCM_U8")
    comes_back(models, tmp_path, (tmp_path / "in.wav").read_bytes(), channels, bits)


PCM = music(70, STEREO)
DATA = chunk(b"data", payload(PCM, 16))


@pytest.mark.parametrize(
    "content",
    [
        riff(fmt(2, 16), b"data\xff\xff\xff\xff" + DATA[8:]),
        b"RIFF\xff\xff\xff\xff" + riff(fmt(2, 16), b"data\xff\xff\xff\xff" + DATA[8:])[8:],
        b"RIFF\xff\xff\xff\xff" + riff(fmt(2, 16), b"data\xff\xff\xff\xff" + DATA[8:])[8:] + b"\1\2\3",
        b"RIFF\0\0\0\0" + riff(fmt(2, 16), DATA)[8:],
        riff(fmt(2, 16), DATA) + b"what an editor left behind",
        riff(fmt(2, 16), chunk(b"data", payload(PCM, 16) + b"\1\2\3")),
        riff(fmt(2, 16), chunk(b"fact", struct.pack("<I", 70)), DATA),
        riff(fmt(2, 16, more=struct.pack("<H", 0)), DATA),
        riff(fmt(2, 16), chunk(b"data", b"")),
    ],
    ids=[
        *("piped", "piped wholly", "piped, cut within a frame", "no length", "bytes behind", "part of a frame"),
        *("fact", "longer fmt", "no samples"),
    ],
)
def test_unusual_wav_files_come_back(models, tmp_path, content):
    comes_back(models, tmp_path, content)


def test_two_chunks_of_samples_are_refused(tmp_path):
    """libsndfile reads the last one, other programs the first."""
    (tmp_path / "in.wav").write_bytes(riff(fmt(2, 16), DATA, chunk(b"data", b"other samples")))
    with pytest.raises(CodecError, match=r"in\.wav: its samples are not where its header says"):
        files.read(tmp_path / "in.wav", STEREO)


def test_rf64_comes_back(models, tmp_path):
    soundfile.write(tmp_path / "in.wav", PCM, 44100, format="RF64", subtype="PCM_16")
    content = (tmp_path / "in.wav").read_bytes()
    assert content[:4] == b"RF64"
    comes_back(models, tmp_path, content)


def test_big_endian_wav_files_keep_their_samples(models, tmp_path):
    soundfile.write(tmp_path / "in.wav", PCM, 44100, format="WAV", subtype="PCM_16", endian="BIG")
    assert (tmp_path / "in.wav").read_bytes()[:4] == b"RIFX"
    through(models, tmp_path / "in.wav", tmp_path / "out.wav")
    assert np.array_equal(read_pcm(tmp_path / "out.wav")[0], PCM)
    assert (tmp_path / "out.wav").read_bytes()[:4] == b"RIFF"


@FORMATS
def test_flac_keeps_its_samples(models, tmp_path, channels, bits):
    pcm = music(129, AudioSpec(44100, channels, bits))
    write_pcm(tmp_path / "in.flac", pcm, 44100, bits=bits)
    assert soundfile.info(tmp_path / "in.flac").subtype == ("PCM_16" if bits == 16 else "PCM_S8")
    for suffix, kind, narrow in (
        (".flac", "FLAC", "PCM_S8"),
        (".FLAC", "FLAC", "PCM_S8"),
        (".wav", "WAV", "PCM_U8"),
    ):
        through(models, tmp_path / "in.flac", tmp_path / f"out{suffix}", channels, bits)
        info = soundfile.info(tmp_path / f"out{suffix}")
        assert (info.format, info.subtype) == (kind, narrow if bits == 8 else "PCM_16")
        assert np.array_equal(read_pcm(tmp_path / f"out{suffix}")[0], pcm)


@pytest.mark.parametrize("rate", [1, 8000, 48000, 192000])
def test_the_rate_is_that_of_the_file(models, tmp_path, rate):
    comes_back(models, tmp_path, riff(fmt(2, 16, rate), DATA))
    assert files.read(tmp_path / "in.wav", STEREO).spec == AudioSpec(rate, 2, 16)
    if rate > 1:
        write_pcm(tmp_path / "in.flac", PCM, rate)
        through(models, tmp_path / "in.flac", tmp_path / "out.flac")
        assert soundfile.info(tmp_path / "out.flac").samplerate == rate


def test_silence_is_short(models, tmp_path):
    content = riff(fmt(2, 16), chunk(b"data", bytes(4 * 500)))
    assert len(comes_back(models, tmp_path, content)) < 650


@pytest.mark.parametrize(
    ("name", "kind", "subtype", "message"),
    [
        ("in.wav", "WAV", "FLOAT", "samples of format FLOAT; 8 and 16 bit WAV and FLAC"),
        ("in.wav", "WAV", "DOUBLE", "samples of format DOUBLE"),
        ("in.wav", "WAV", "PCM_24", "samples of format PCM_24"),
        ("in.wav", "WAV", "PCM_32", "samples of format PCM_32"),
        ("in.wav", "WAV", "ULAW", "samples of format ULAW"),
        ("in.wav", "WAV", "ALAW", "samples of format ALAW"),
        ("in.wav", "WAV", "IMA_ADPCM", "samples of format IMA_ADPCM"),
        ("in.flac", "FLAC", "PCM_24", "samples of format PCM_24"),
        ("in.ogg", "OGG", "VORBIS", "samples of format VORBIS"),
        ("in.wav", "OGG", "VORBIS", "samples of format VORBIS"),
    ],
)
def test_other_formats_are_refused(tmp_path, name, kind, subtype, message):
    soundfile.write(tmp_path / name, np.zeros((600, 2)), 44100, format=kind, subtype=subtype)
    with pytest.raises(CodecError, match=message) as refused:
        files.read(tmp_path / name, STEREO)
    assert str(tmp_path / name) in str(refused.value)


@pytest.mark.parametrize(
    ("channels", "bits", "message"),
    [
        (1, 16, r"is mono \(1 channel\), and the model codes stereo \(2 channels\)"),
        (3, 16, r"is 3 channels, and the model codes stereo"),
        (2, 8, "has 8 bits a sample, and the model codes 16"),
    ],
)
def test_other_channels_and_bits_are_refused(tmp_path, channels, bits, message):
    write_pcm(tmp_path / "in.wav", np.zeros((9, channels), np.int16), 44100, bits=bits)
    with pytest.raises(CodecError, match=message):
        files.read(tmp_path / "in.wav", STEREO)
    write_pcm(tmp_path / "in.wav", PCM, 44100)
    with pytest.raises(CodecError, match=r"is stereo \(2 channels\), and the model codes mono"):
        files.read(tmp_path / "in.wav", AudioSpec(44100, 1, 16))
    with pytest.raises(CodecError, match="has 16 bits a sample, and the model codes 8"):
        files.read(tmp_path / "in.wav", AudioSpec(44100, 2, 8))


def test_files_that_are_not_whole_are_refused(tmp_path):
    content = riff(fmt(2, 16), DATA)
    for end in range(len(content)):
        (tmp_path / "in.wav").write_bytes(content[:end])
        with pytest.raises(ValueError, match=r"in\.wav"):
            files.read(tmp_path / "in.wav", STEREO)
    write_pcm(tmp_path / "in.flac", music(5000, STEREO), 44100)
    content = (tmp_path / "in.flac").read_bytes()
    for end in (0, 10, 60, len(content) // 2, len(content) - 1):
        (tmp_path / "in.flac").write_bytes(content[:end])
        with pytest.raises(AudioError, match=r"in\.flac"):
            files.read(tmp_path / "in.flac", STEREO)


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(AudioError, match=r"absent\.wav: there is no such file"):
        files.read(tmp_path / "absent.wav", STEREO)
    with pytest.raises(AudioError, match="cannot read the file"):
        files.read(tmp_path, STEREO)
    (tmp_path / "text.wav").write_text("no audio at all")
    with pytest.raises(AudioError, match="not an audio file"):
        files.read(tmp_path / "text.wav", STEREO)


def test_much_beside_the_samples_is_refused(models, tmp_path):
    noise = np.random.default_rng(0).bytes(MAX_ENVELOPE - 44 - 8)
    (tmp_path / "in.wav").write_bytes(riff(fmt(2, 16), DATA, chunk(b"junk", bytes(MAX_ENVELOPE))))
    with pytest.raises(CodecError, match="more than 16 MiB beside its samples"):
        files.read(tmp_path / "in.wav", STEREO)
    # As many bytes as are allowed, which compressed are more.
    (tmp_path / "in.wav").write_bytes(riff(fmt(2, 16), DATA, chunk(b"junk", noise)))
    with pytest.raises(CodecError, match="more than 16 MiB beside its samples"):
        files.read(tmp_path / "in.wav", STEREO)
    comes_back(models, tmp_path, riff(fmt(2, 16), DATA, chunk(b"junk", bytes(len(noise)))))


def test_nothing_is_written_where_that_fails(tmp_path):
    for target, message in (("absent/out.wav", "cannot write"), ("out.mp3", "written as .wav or .flac")):
        with pytest.raises(AudioError, match=message):
            files.write(tmp_path / target, PCM, STEREO, b"", "song")
    with pytest.raises(AudioError, match="FLAC cannot hold 0 frames"):
        files.write(tmp_path / "out.flac", PCM[:0], STEREO, b"", "song")
    assert list(tmp_path.iterdir()) == []
