"""Audio files of the codec: integer PCM in, with what stands around the samples of a WAV file; the same bytes out."""

import os
import shutil
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import soundfile

from stereo_sashimi.audio import io
from stereo_sashimi.codec.container import MAX_ENVELOPE, CodecError, FileHeader
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


def write(path: Path, blocks: Iterable[np.ndarray], header: FileHeader, envelope: bytes, name: str) -> None:
    """Write blocks of PCM to .wav or .flac (by suffix), whole or not at all; a WAV file is to the byte the one coded.

    `header`, `name`: of the coded file. What is wrong is said before the first block is taken: CodecError for a damaged
    envelope, AudioError for more than a plain WAV file or the disk holds. Later AudioError where writing fails.
    """
    if path.suffix.lower() == ".wav":
        parts = _open_envelope(envelope, name) if envelope else _plain_wav(path, header)
        size = header.pcm_bytes + len(parts[0]) + len(parts[1])
        with io.whole_file(path) as file:
            if size > (free := shutil.disk_usage(path.parent).free):
                raise io.AudioError(
                    f"{path}: {size:,} bytes do not fit on its disk, which has {free:,} left. Make room, or give "
                    "another output=<file>."
                )
            file.write(parts[0])
            for block in blocks:
                file.write(_payload(block, header.spec))
            file.write(parts[1])
    else:
        _write_flac(path, blocks, header)


def _plain_wav(path: Path, header: FileHeader) -> tuple[bytes, bytes]:
    """What stands before and behind the samples of the shortest WAV file."""
    spec, size = header.spec, header.pcm_bytes
    frame = spec.n_channels * spec.bits // 8
    if size > io.WAV_BYTES:
        raise io.AudioError(f"{path}: {size:,} bytes of audio do not fit into a WAV file; give output=<file>.flac.")
    try:
        fmt = struct.pack(
            "<IHHIIHH", 16, 1, spec.n_channels, spec.sample_rate, spec.sample_rate * frame, frame, spec.bits
        )
    except struct.error as error:
        raise io.AudioError(f"{path}: a WAV file cannot have {spec.sample_rate} Hz.") from error
    riff = struct.pack("<4sI4s", b"RIFF", 36 + size + size % 2, b"WAVE")
    return riff + b"fmt " + fmt + struct.pack("<4sI", b"data", size), bytes(size % 2)


def _write_flac(path: Path, blocks: Iterable[np.ndarray], header: FileHeader) -> None:
    spec = header.spec
    if not header.frames:
        raise io.AudioError(f"{path}: FLAC cannot hold 0 frames; write .wav.")
    with io.whole_file(path) as file:
        try:
            flac = soundfile.SoundFile(
                file.fileno(), "w", spec.sample_rate, spec.n_channels, f"PCM_{'16' if spec.bits == 16 else 'S8'}",
                format="FLAC", closefd=False,
            )  # fmt: skip
        except (soundfile.SoundFileError, ValueError, OverflowError) as error:
            raise io.AudioError(f"{path}: {spec.sample_rate} Hz cannot be written as FLAC ({error}).") from error
        try:
            with flac:
                for block in blocks:
                    flac.write(block)
            # What could not be written when the file was closed is not reported.
            with soundfile.SoundFile(os.fsencode(file.name)) as back:
                back.seek(header.frames - 1)
                written = len(back.read(1))
        except soundfile.SoundFileError as error:
            raise io.AudioError(f"{path}: cannot write the file ({error}). Is the disk full?") from error
        if not written:
            raise io.AudioError(f"{path}: cannot write the file to its end. Is the disk full?")


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
