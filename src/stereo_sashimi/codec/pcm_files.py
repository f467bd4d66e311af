"""Audio files of the codec: integer PCM in, with what stands around the samples of a WAV file; the same bytes out."""

import struct
import zlib
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from stereo_sashimi.audio import io
from stereo_sashimi.codec.container import MAX_ENVELOPE, CodecError
from stereo_sashimi.spec import AudioSpec

# Bits of the sample formats that are coded, by libsndfile's names.
_BITS = {"PCM_16": 16, "PCM_U8": 8, "PCM_S8": 8}
SUFFIXES = (".wav", ".flac")


class PcmFile(NamedTuple):
    """int16 PCM (frames, channels), its rate and bits, and the `envelope` of a WAV file, else b""."""

    pcm: np.ndarray
    spec: AudioSpec
    envelope: bytes


def read(path: Path, model: AudioSpec) -> PcmFile:
    """The samples of a .wav or .flac file of 8 or 16 bits, in the channels and bits of the model.

    Raises CodecError for any other format, channels or bits, AudioError as `audio.read_pcm`.
    """
    with io.open_audio(path) as file:
        file.check_end()
        _check_format(file.info, model)
        pcm, _ = file.read()
        spec = AudioSpec(file.info.sample_rate, file.info.n_channels, _BITS[file.info.subtype])
    return PcmFile(pcm, spec, _envelope(path, pcm, spec))


def _check_format(info: io.AudioInfo, model: AudioSpec) -> None:
    path = info.path
    if info.subtype not in _BITS:
        raise CodecError(
            f"{path} has samples of format {info.subtype}; 8 and 16 bit WAV and FLAC are coded without loss. Convert "
            "the file, or compress it with flac."
        )
    bits = _BITS[info.subtype]
    names = {1: "mono (1 channel)", 2: "stereo (2 channels)"}
    if info.n_channels != model.n_channels:
        found = names.get(info.n_channels, f"{info.n_channels} channels")
        raise CodecError(f"{path} is {found}, and the model codes {names[model.n_channels]}. Use another model.")
    if bits != model.bits:
        raise CodecError(f"{path} has {bits} bits a sample, and the model codes {model.bits}. Use another model.")


def write(path: Path, pcm: np.ndarray, spec: AudioSpec, envelope: bytes, name: str) -> None:
    """Write .wav or .flac (by suffix) whole or not at all; a WAV file is to the byte the one that was coded.

    `name`: of the coded file, for messages. Raises AudioError where that fails, CodecError for a damaged envelope.
    """
    if path.suffix.lower() == ".wav" and envelope:
        head, tail = _open_envelope(envelope, name)
        io.write_whole(path, b"".join([head, _payload(pcm, spec), tail]))
    else:
        io.write_pcm(path, pcm, spec.sample_rate, bits=spec.bits)


def _envelope(path: Path, pcm: np.ndarray, spec: AudioSpec) -> bytes:
    """What stands before and behind the samples of a WAV file, compressed; b"" for other files."""
    with open(path, "rb") as file:
        magic = file.read(12)
        if magic[:4] not in (b"RIFF", b"RF64") or magic[8:] != b"WAVE":
            return b""
        start = _data_start(file)
        file.seek(0)
        head = file.read(start)
        payload = _payload(pcm, spec)
        if file.read(len(payload)) != payload:
            raise CodecError(f"{path}: its samples are not where its header says. Convert it to a plain WAV file.")
        tail = file.read(MAX_ENVELOPE + 1)
    envelope = zlib.compress(struct.pack("<I", len(head)) + head + tail, 9)
    # What cannot be compressed becomes a little longer.
    if max(len(head) + len(tail), len(envelope)) > MAX_ENVELOPE:
        raise CodecError(
            f"{path} has more than {MAX_ENVELOPE >> 20} MiB beside its samples, which would be kept too. Remove its "
            "metadata."
        )
    return envelope


def _data_start(file: BinaryIO) -> int:
    """Where the samples begin; libsndfile has found them before. EBU Tech 3306: chunks of an id, a size and a body."""
    while len(header := file.read(8)) == 8:
        chunk, length = struct.unpack("<4sI", header)
        if chunk == b"data":
            return file.tell()
        file.seek(length + length % 2, 1)
    raise CodecError(f"{file.name}: there is no chunk of samples.")


def _open_envelope(envelope: bytes, name: str) -> tuple[bytes, bytes]:
    stream = zlib.decompressobj()
    try:
        # A small stream can unfold to any size. With one byte more than are allowed its end is seen.
        content = stream.decompress(envelope, MAX_ENVELOPE + 5)
        (length,) = struct.unpack_from("<I", content)
    except (zlib.error, struct.error) as error:
        raise CodecError(f"{name} is damaged: the header of its WAV file cannot be read ({error}).") from error
    if not stream.eof or stream.unused_data or not 4 + length <= len(content) <= MAX_ENVELOPE + 4:
        raise CodecError(f"{name} is damaged: the header of its WAV file has another length than it says.")
    return content[4 : 4 + length], content[4 + length :]


def _payload(pcm: np.ndarray, spec: AudioSpec) -> bytes:
    """Samples as they lie in a WAV file: 16 bits little-endian, 8 bits unsigned."""
    return pcm.astype("<i2").tobytes() if spec.bits == 16 else ((pcm >> 8) + 128).astype(np.uint8).tobytes()
