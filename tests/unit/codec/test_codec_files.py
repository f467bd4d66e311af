"""WAV, AIFF and FLAC files through the codec and back: to the byte, FLAC with its metadata; all else is refused."""

import io
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from codec_models import music, small
from packed import reader

from limits import files_of_at_most
from stereo_sashimi.audio.io import AudioError
from stereo_sashimi.codec import envelopes
from stereo_sashimi.codec import pcm_files as files
from stereo_sashimi.codec.coding import decode_blocks, encode_to
from stereo_sashimi.codec.container import CodecError, FileHeader
from stereo_sashimi.spec import AudioSpec

FORMATS = pytest.mark.parametrize(("channels", "bits"), [(1, 8), (2, 8), (1, 16), (2, 16), (3, 16), (1, 24), (2, 24)])
STEREO = AudioSpec(44100, 2, 16)
GUID = b"\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71"


@pytest.fixture(scope="module")
def model():
    return small("stereo-16-experts-alone")


def chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def fmt(channels: int, bits: int, rate: int = 44100, kind: int = 1, more: bytes = b"") -> bytes:
    frame = channels * bits // 8
    return chunk(b"fmt ", struct.pack("<HHIIHH", kind, channels, rate, rate * frame, frame, bits) + more)


def riff(*chunks: bytes) -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def payload(pcm: np.ndarray, bits: int) -> bytes:
    """Of right-justified samples."""
    if bits == 8:
        return (pcm + 128).astype(np.uint8).tobytes()
    return pcm.astype("<i4").view(np.uint8).reshape(-1, 4)[:, : bits // 8].tobytes()


def tune(frames: int, channels: int, bits: int) -> np.ndarray:
    """Right-justified samples, int32 (frames, channels)."""
    rng = np.random.default_rng(channels)
    return np.cumsum(rng.normal(0, 2 ** (bits - 9), (frames, channels)), 0).astype(np.int32)


def through(model, source: Path, target: Path) -> bytes:
    """Read, code, decode and write; the coded bytes."""
    file = io.BytesIO()
    with files.open_pcm(source) as recording:
        encode_to(file, model, recording, segment_frames=64)
    coded = reader(file.getvalue())
    header = coded.header
    assert (header.container, header.n_channels, header.bits) == (recording.kind, recording.n_channels, recording.bits)
    files.write(target, decode_blocks(model, coded), header, coded.envelope, "song")
    return file.getvalue()


def samples(path: Path) -> np.ndarray:
    with files.open_pcm(path) as recording:
        return recording.read(0, recording.frames)


def comes_back(model, folder: Path, content: bytes, suffix: str = ".wav") -> bytes:
    source, target = folder / f"in{suffix}", folder / f"out{suffix}"
    source.write_bytes(content)
    data = through(model, source, target)
    assert target.read_bytes() == content
    target.unlink()
    assert [path.name for path in folder.iterdir()] == [source.name]
    source.unlink()
    return data


def written(pcm: np.ndarray, kind: str, bits: int = 16, **options: str) -> bytes:
    """The file that libsndfile writes of right-justified samples."""
    subtype = f"PCM_{bits}" if bits > 8 else "PCM_S8" if kind in ("FLAC", "AIFF") else "PCM_U8"
    wide = pcm.astype(np.int32) << 32 - bits
    soundfile.write(file := io.BytesIO(), wide, 44100, format=kind, subtype=subtype, **options)
    return file.getvalue()


@FORMATS
def test_files_of_all_formats_come_back(model, tmp_path, channels, bits):
    for frames in (0, 1, 129):
        pcm = tune(frames, channels, bits)
        comes_back(model, tmp_path, written(pcm, "WAV", bits))
        comes_back(model, tmp_path, written(pcm, "AIFF", bits), ".aiff")
    if bits > 8:
        comes_back(model, tmp_path, written(pcm, "AIFF", bits, endian="LITTLE"), ".aif")
    # 129 frames: an odd number of bytes for mono of 8 bits, with a pad byte behind them.
    before = chunk(b"LIST", b"INFO" + chunk(b"ISFT", b"odd.\0")) + chunk(b"junk", b"123")
    after = chunk(b"LIST", b"INFO" + chunk(b"INAM", b"title\0")) + chunk(b"bext", bytes(602)) + chunk(b"junk", b"123")
    data = chunk(b"data", payload(pcm, bits))
    extensible = struct.pack("<HHI", 22, bits, (1 << channels) - 1) + struct.pack("<H", 1) + GUID
    for content in (
        riff(fmt(channels, bits, kind=0xFFFE, more=extensible), data),
        written(pcm, "WAVEX", bits),
        written(pcm, "RF64", bits),
        riff(fmt(channels, bits), before, data, after),
    ):
        comes_back(model, tmp_path, content)
    (tmp_path / "in.wav").write_bytes(written(pcm, "WAV", bits))
    (tmp_path / "in.aiff").write_bytes(written(pcm, "AIFF", bits))
    (tmp_path / "in.flac").write_bytes(written(pcm, "FLAC", bits))
    # What was a file of another kind becomes a plain one.
    for source in ("in.wav", "in.aiff", "in.flac"):
        for name, kind in (("a.flac", "FLAC"), ("b.FLAC", "FLAC"), ("c.wav", "WAV")):
            through(model, tmp_path / source, tmp_path / name)
            assert soundfile.info(tmp_path / name).format == kind
            assert np.array_equal(samples(tmp_path / name), samples(tmp_path / source))
        if source != "in.aiff":
            # libsndfile makes an odd number of bytes of AIFF even.
            assert np.array_equal(samples(tmp_path / source), pcm)
            assert (tmp_path / "c.wav").read_bytes() == written(pcm, "WAV", bits)


def block(kind: int, body: bytes, last: bool = False) -> bytes:
    return bytes([kind | last << 7]) + len(body).to_bytes(3, "big") + body


def test_tags_and_pictures_of_flac_are_kept(model, tmp_path):
    plain = written(PCM, "FLAC")
    end = 4 + 4 + 34
    comment = struct.pack("<I", 4) + b"mine" + struct.pack("<II", 1, 9) + b"TITLE=Sea"
    art = struct.pack(">II9sI4I", 3, 9, b"image/png", 0, 1, 1, 24, 0) + struct.pack(">I", 4500) + b"cover art" * 500
    picture, seek = block(6, art), block(3, bytes(18))
    frames_at = plain.index(b"\xff\xf8", end)
    content = plain[:4] + bytes([0]) + plain[5:end] + block(4, comment) + picture + seek + block(1, bytes(99), True)
    (tmp_path / "in.flac").write_bytes(content + plain[frames_at:])
    through(model, tmp_path / "in.flac", tmp_path / "out.flac")
    back = (tmp_path / "out.flac").read_bytes()
    assert np.array_equal(samples(tmp_path / "out.flac"), PCM)
    kept = back[: back.index(b"\xff\xf8", end)]
    # A table of places in another stream is not.
    assert kept.endswith(block(4, comment) + picture + block(1, bytes(99), True))


PCM = music(70, STEREO).astype(np.int32)
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
def test_unusual_wav_files_come_back(model, tmp_path, content):
    comes_back(model, tmp_path, content)


def test_two_chunks_of_samples_are_refused(tmp_path):
    """libsndfile reads the last one, other programs the first."""
    (tmp_path / "in.wav").write_bytes(riff(fmt(2, 16), DATA, chunk(b"data", b"other samples")))
    with pytest.raises(CodecError, match=r"in\.wav: its samples are not where its header says"):
        samples(tmp_path / "in.wav")


def test_big_endian_wav_files_come_back(model, tmp_path):
    content = written(PCM, "WAV", endian="BIG")
    assert content[:4] == b"RIFX"
    comes_back(model, tmp_path, content)


@pytest.mark.parametrize("rate", [1, 8000, 48000, 192000])
def test_the_rate_is_that_of_the_file(model, tmp_path, rate):
    content = riff(fmt(2, 16, rate), DATA)
    data = comes_back(model, tmp_path, content)
    assert reader(data).header.sample_rate == rate
    if rate > 1:
        (tmp_path / "in.wav").write_bytes(content)
        through(model, tmp_path / "in.wav", tmp_path / "out.flac")
        assert soundfile.info(tmp_path / "out.flac").samplerate == rate


def test_silence_is_short(model, tmp_path):
    content = riff(fmt(2, 16), chunk(b"data", bytes(4 * 500)))
    assert len(comes_back(model, tmp_path, content)) < 650


@pytest.mark.parametrize(
    ("kind", "subtype"),
    [
        *(("WAV", kind) for kind in ("FLOAT", "DOUBLE", "PCM_32", "ULAW", "ALAW", "IMA_ADPCM")),
        *(("CAF", "PCM_16"), ("AU", "PCM_24"), ("AIFF", "PCM_32"), ("OGG", "VORBIS")),
    ],
)
def test_other_formats_are_refused(tmp_path, kind, subtype):
    # What a file is called says nothing.
    for name in ("in.wav", f"in.{kind.lower()}"):
        soundfile.write(tmp_path / name, np.zeros((600, 2)), 44100, format=kind, subtype=subtype)
        with pytest.raises(CodecError, match=rf"{name} is {kind} with samples of format {subtype}; WAV, AIFF and FLAC"):
            samples(tmp_path / name)


def test_files_that_are_not_whole_are_refused(tmp_path):
    content = riff(fmt(2, 16), DATA)
    for end in range(len(content)):
        (tmp_path / "in.wav").write_bytes(content[:end])
        with pytest.raises(ValueError, match=r"in\.wav"):
            samples(tmp_path / "in.wav")
    content = written(tune(5000, 2, 16), "FLAC")
    for end in (0, 10, 60, len(content) // 2, len(content) - 1):
        (tmp_path / "in.flac").write_bytes(content[:end])
        with pytest.raises(AudioError, match=r"in\.flac"):
            samples(tmp_path / "in.flac")


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(AudioError, match=r"absent\.wav: there is no such file"):
        samples(tmp_path / "absent.wav")
    with pytest.raises(AudioError, match="not a file but a pipe, device or folder"):
        samples(tmp_path)
    (tmp_path / "text.wav").write_text("no audio at all")
    with pytest.raises(AudioError, match="not an audio file"):
        samples(tmp_path / "text.wav")


def test_much_beside_the_samples_is_refused(model, tmp_path, monkeypatch):
    most = 1 << 20
    monkeypatch.setattr(envelopes, "MAX_ENVELOPE", most)
    noise = np.random.default_rng(0).bytes(most - 44 - 8)
    (tmp_path / "in.wav").write_bytes(riff(fmt(2, 16), DATA, chunk(b"junk", bytes(most))))
    with pytest.raises(CodecError, match="more than 1 MiB beside its samples"):
        samples(tmp_path / "in.wav")
    # As many bytes as are allowed, which compressed are more.
    (tmp_path / "in.wav").write_bytes(riff(fmt(2, 16), DATA, chunk(b"junk", noise)))
    with pytest.raises(CodecError, match="more than 1 MiB beside its samples"):
        samples(tmp_path / "in.wav")
    comes_back(model, tmp_path, riff(fmt(2, 16), DATA, chunk(b"junk", bytes(len(noise)))))


HEADER = FileHeader(3, "wav", 44100, 2, 16, len(PCM), 70, "", "", "", "", 0, "")
HUGE = replace(HEADER, frames=1 << 32)
RAPID = replace(HEADER, sample_rate=1 << 30)
# Of bytes without end, and of as many bytes as 2**32 frames have.
KEPT = zlib.compress(struct.pack("<?I", False, 44) + bytes(44))


@pytest.mark.parametrize(
    ("target", "header", "envelope", "message"),
    [
        ("absent/out.flac", HEADER, b"", r"absent/out\.flac: cannot write the file \(No such file"),
        ("absent/out.wav", HEADER, KEPT, r"absent/out\.wav: cannot write the file \(No such file"),
        ("out.flac", replace(HEADER, frames=0), b"", "FLAC cannot hold 0 frames"),
        ("out.wav", HUGE, b"", "17,179,869,184 bytes of audio do not fit into a WAV file; give output=<file>.flac"),
        ("out.wav", HUGE, KEPT, "17,179,869,228 bytes do not fit on its disk, which has 999 left. Make room"),
        ("out.wav", RAPID, b"", "a WAV file cannot have 1073741824 Hz"),
        ("out.flac", RAPID, b"", "1073741824 Hz cannot be written as FLAC"),
        ("out.flac", replace(HEADER, n_channels=9), b"", "9 channels at 44100 Hz cannot be written as FLAC"),
        ("out.aiff", HEADER, b"", "only what was an AIFF file becomes one again"),
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
    pcm = np.random.default_rng(0).integers(-9000, 9000, (50_000, 2)).astype(np.int32)
    room = room if room > 0 else len(written(pcm, "FLAC")) + room
    with files_of_at_most(room), pytest.raises(AudioError, match=rf"{name}: cannot write the file"):
        files.write(tmp_path / name, iter(np.split(pcm, 50)), replace(HEADER, frames=len(pcm)), b"", "song")
    assert list(tmp_path.iterdir()) == []
