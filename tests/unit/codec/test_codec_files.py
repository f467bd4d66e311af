"""WAV and FLAC files through the codec and back: WAV to the byte, FLAC to the sample; everything else is refused."""

import io
import resource
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from codec_models import music, small

from stereo_sashimi.audio.io import AudioError, read_pcm
from stereo_sashimi.codec import pcm_files as files
from stereo_sashimi.codec.coding import decode_blocks, encode
from stereo_sashimi.codec.container import MAX_ENVELOPE, CodecError, FileHeader, unpack
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
    files.write(target, decode_blocks(model, data), header, envelope, "song")
    return data


def comes_back(models, folder: Path, content: bytes, channels: int = 2, bits: int = 16) -> bytes:
    (folder / "in.wav").write_bytes(content)
    data = through(models, folder / "in.wav", folder / "out.wav", channels, bits)
    assert (folder / "out.wav").read_bytes() == content
    (folder / "out.wav").unlink()
    assert [path.name for path in folder.iterdir()] == ["in.wav"]
    return data


def written(pcm: np.ndarray, kind: str, bits: int = 16, **options: str) -> bytes:
    """The file that libsndfile writes."""
    narrow = "PCM_S8" if kind == "FLAC" else "PCM_U8"
    soundfile.write(
        file := io.BytesIO(), pcm, 44100, format=kind, subtype="PCM_16" if bits == 16 else narrow, **options
    )
    return file.getvalue()


@FORMATS
def test_wav_files_come_back(models, tmp_path, channels, bits):
    spec = AudioSpec(44100, channels, bits)
    for frames in (0, 1, 2, 129):
        pcm = music(frames, spec)
        comes_back(models, tmp_path, written(pcm, "WAV", bits), channels, bits)
        assert np.array_equal(files.read(tmp_path / "in.wav", spec).pcm, pcm)
    # 129 frames: an odd number of bytes for mono of 8 bits, with a pad byte behind them.
    before = chunk(b"LIST", b"INFO" + chunk(b"ISFT", b"odd.\0")) + chunk(b"junk", b"123")
    after = chunk(b"LIST", b"INFO" + chunk(b"INAM", b"title\0")) + chunk(b"junk", b"123")
    data = chunk(b"data", payload(pcm, bits))
    extensible = struct.pack("<HHI", 22, bits, channels) + struct.pack("<H", 1) + GUID
    for content in (
        riff(fmt(channels, bits, kind=0xFFFE, more=extensible), data),
        written(pcm, "WAVEX", bits),
        riff(fmt(channels, bits), before, data, after),
    ):
        comes_back(models, tmp_path, content, channels, bits)
    # From FLAC the samples come back, and no chunks.
    (tmp_path / "in.flac").write_bytes(written(pcm, "FLAC", bits))
    for source in ("in.wav", "in.flac"):
        for name, kind, narrow in (
            ("a.flac", "FLAC", "PCM_S8"),
            ("b.FLAC", "FLAC", "PCM_S8"),
            ("c.wav", "WAV", "PCM_U8"),
        ):
            through(models, tmp_path / source, tmp_path / name, channels, bits)
            info = soundfile.info(tmp_path / name)
            assert (info.format, info.subtype) == (kind, narrow if bits == 8 else "PCM_16")
            assert np.array_equal(read_pcm(tmp_path / name)[0], pcm)
    assert (tmp_path / "c.wav").read_bytes() == written(pcm, "WAV", bits)
    assert (tmp_path / "a.flac").read_bytes() == written(pcm, "FLAC", bits)


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
        written(PCM, "RF64"),
    ],
    ids=[
        *("piped", "piped wholly", "piped, cut within a frame", "no length", "bytes behind", "part of a frame"),
        *("fact", "longer fmt", "no samples", "RF64"),
    ],
)
def test_unusual_wav_files_come_back(models, tmp_path, content):
    comes_back(models, tmp_path, content)


def test_two_chunks_of_samples_are_refused(tmp_path):
    """libsndfile reads the last one, other programs the first."""
    (tmp_path / "in.wav").write_bytes(riff(fmt(2, 16), DATA, chunk(b"data", b"other samples")))
    with pytest.raises(CodecError, match=r"in\.wav: its samples are not where its header says"):
        files.read(tmp_path / "in.wav", STEREO)


def test_big_endian_wav_files_keep_their_samples(models, tmp_path):
    (tmp_path / "in.wav").write_bytes(written(PCM, "WAV", endian="BIG"))
    through(models, tmp_path / "in.wav", tmp_path / "out.wav")
    assert np.array_equal(read_pcm(tmp_path / "out.wav")[0], PCM)
    assert [(tmp_path / name).read_bytes()[:4] for name in ("in.wav", "out.wav")] == [b"RIFX", b"RIFF"]


@pytest.mark.parametrize("rate", [1, 8000, 48000, 192000])
def test_the_rate_is_that_of_the_file(models, tmp_path, rate):
    comes_back(models, tmp_path, riff(fmt(2, 16, rate), DATA))
    assert files.read(tmp_path / "in.wav", STEREO).spec == AudioSpec(rate, 2, 16)
    if rate > 1:
        through(models, tmp_path / "in.wav", tmp_path / "out.flac")
        assert soundfile.info(tmp_path / "out.flac").samplerate == rate


def test_silence_is_short(models, tmp_path):
    content = riff(fmt(2, 16), chunk(b"data", bytes(4 * 500)))
    assert len(comes_back(models, tmp_path, content)) < 650


@pytest.mark.parametrize(
    ("kind", "subtype"),
    [
        *(("WAV", kind) for kind in ("FLOAT", "DOUBLE", "PCM_24", "PCM_32", "ULAW", "ALAW", "IMA_ADPCM")),
        *(("FLAC", "PCM_24"), ("OGG", "VORBIS")),
    ],
)
def test_other_formats_are_refused(tmp_path, kind, subtype):
    # What a file is called says nothing.
    for name in ("in.wav", f"in.{kind.lower()}"):
        soundfile.write(tmp_path / name, np.zeros((600, 2)), 44100, format=kind, subtype=subtype)
        with pytest.raises(CodecError, match=rf"{name} has samples of format {subtype}; 8 and 16 bit WAV and FLAC"):
            files.read(tmp_path / name, STEREO)


@pytest.mark.parametrize(
    ("channels", "bits", "model", "message"),
    [
        (1, 16, STEREO, r"is mono \(1 channel\), and the model codes stereo \(2 channels\)"),
        (3, 16, STEREO, r"is 3 channels, and the model codes stereo"),
        (2, 16, AudioSpec(44100, 1, 16), r"is stereo \(2 channels\), and the model codes mono"),
        (2, 8, STEREO, "has 8 bits a sample, and the model codes 16"),
        (2, 16, AudioSpec(44100, 2, 8), "has 16 bits a sample, and the model codes 8"),
    ],
)
def test_other_channels_and_bits_are_refused(tmp_path, channels, bits, model, message):
    (tmp_path / "in.wav").write_bytes(written(np.zeros((9, channels), np.int16), "WAV", bits))
    with pytest.raises(CodecError, match=message):
        files.read(tmp_path / "in.wav", model)


def test_files_that_are_not_whole_are_refused(tmp_path):
    content = riff(fmt(2, 16), DATA)
    for end in range(len(content)):
        (tmp_path / "in.wav").write_bytes(content[:end])
        with pytest.raises(ValueError, match=r"in\.wav"):
            files.read(tmp_path / "in.wav", STEREO)
    content = written(music(5000, STEREO), "FLAC")
    for end in (0, 10, 60, len(content) // 2, len(content) - 1):
        (tmp_path / "in.flac").write_bytes(content[:end])
        with pytest.raises(AudioError, match=r"in\.flac"):
            files.read(tmp_path / "in.flac", STEREO)


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(AudioError, match=r"absent\.wav: there is no such file"):
        files.read(tmp_path / "absent.wav", STEREO)
    with pytest.raises(AudioError, match="not a file but a pipe, device or folder"):
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


HEADER = FileHeader(2, STEREO, len(PCM), 70, "", "", "", 0, "")
HUGE = replace(HEADER, frames=1 << 32)
RAPID = replace(HEADER, spec=AudioSpec(1 << 40, 2, 16))
# Of bytes without end, and of as many bytes as 2**32 frames have.
KEPT = zlib.compress(struct.pack("<I", 44) + bytes(44))


@pytest.mark.parametrize(
    ("target", "header", "envelope", "message"),
    [
        ("absent/out.flac", HEADER, b"", r"absent/out\.flac: cannot write the file \(No such file"),
        ("absent/out.wav", HEADER, KEPT, r"absent/out\.wav: cannot write the file \(No such file"),
        ("out.flac", replace(HEADER, frames=0), b"", "FLAC cannot hold 0 frames"),
        ("out.wav", HUGE, b"", "17,179,869,184 bytes of audio do not fit into a WAV file; give output=<file>.flac"),
        ("out.wav", HUGE, KEPT, "17,179,869,228 bytes do not fit on its disk, which has 999 left. Make room"),
        ("out.wav", RAPID, b"", "a WAV file cannot have 1099511627776 Hz"),
        ("out.flac", RAPID, b"", "1099511627776 Hz cannot be written as FLAC"),
    ],
)
def test_what_cannot_be_written_is_refused_before_the_work(tmp_path, monkeypatch, target, header, envelope, message):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=999))
    blocks = iter([PCM])
    with pytest.raises(AudioError, match=message):
        files.write(tmp_path / target, blocks, header, envelope, "song")
    assert next(blocks) is PCM
    assert list(tmp_path.iterdir()) == []


# FLAC holds its last block back until it is closed, and nothing says then that it could not be written.
@pytest.mark.parametrize(("name", "room"), [("a.wav", 30_000), ("a.flac", 30_000), ("a.flac", -100)])
def test_a_full_disk_leaves_nothing(tmp_path, name, room):
    pcm = np.random.default_rng(0).integers(-9000, 9000, (50_000, 2)).astype(np.int16)
    room = room if room > 0 else len(written(pcm, "FLAC")) + room
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        with pytest.raises(AudioError, match=rf"{name}: cannot write the file"):
            files.write(tmp_path / name, iter(np.split(pcm, 50)), replace(HEADER, frames=len(pcm)), b"", "song")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []
