"""Audio files of the codec: integer PCM in, with all else that the file holds; the same file out.

libsndfile reads and writes samples; what stands around them is kept as bytes (`envelopes.py`).
"""

import os
import shutil
import struct
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import soundfile

from stereo_sashimi.audio import io
from stereo_sashimi.codec.coding import to_bytes
from stereo_sashimi.codec.container import CodecError, FileHeader
from stereo_sashimi.codec.envelopes import Envelope, flac_metadata, open_envelope, sample_bytes_start, with_metadata

# Bits of the sample formats that are coded, by libsndfile's names.
_BITS = {"PCM_16": 16, "PCM_U8": 8, "PCM_S8": 8, "PCM_24": 24}
_KINDS = {"WAV": "wav", "WAVEX": "wav", "RF64": "wav", "AIFF": "aiff", "FLAC": "flac"}
SUFFIXES = {".wav": "wav", ".wave": "wav", ".aiff": "aiff", ".aif": "aiff", ".aifc": "aiff", ".flac": "flac"}
# Frames that are read, compared or written at once.
_BLOCK = 1 << 18


class PcmFile:
    """An open audio file of integer PCM, from `open_pcm`: a `PcmSource` of the codec."""

    def __init__(self, path: Path, reader: io.AudioReader) -> None:
        file = reader.file
        if file.format not in _KINDS or file.subtype not in _BITS:
            raise CodecError(
                f"{path} is {file.format} with samples of format {file.subtype}; WAV, AIFF and FLAC of 8, 16 and 24 "
                "bits are coded without loss. Convert the file, or compress it otherwise."
            )
        self.path, self._reader = path, reader
        self.kind, self.bits = _KINDS[file.format], _BITS[file.subtype]
        self.sample_rate, self.n_channels, self.frames = file.samplerate, file.channels, file.frames
        self.envelope = self._envelope()

    def read(self, first: int, count: int) -> np.ndarray:
        """int32 (count, channels). Raises AudioError for a file that is cut off."""
        # libsndfile puts samples at the top of the 32 bits.
        return self._reader.decode(first, count, "int32") >> 32 - self.bits

    def blocks(self) -> Iterator[np.ndarray]:
        """All of it."""
        for first in range(0, self.frames, _BLOCK):
            yield self.read(first, min(_BLOCK, self.frames - first))

    def _envelope(self) -> bytes:
        with open(self.path, "rb") as raw:
            if self.kind == "flac":
                return Envelope(flac_metadata(raw), b"", False).packed(self.path)
            start = sample_bytes_start(raw)
            raw.seek(0)
            head = raw.read(start)
            # Most WAV files are little-endian and most AIFF files are not.
            orders = (True, False) if self.kind == "aiff" else (False, True)
            for big_endian in orders:
                raw.seek(start)
                if all(raw.read(len(own)) == own for own in self._stored(big_endian)):
                    return Envelope(head, raw.read(), big_endian).packed(self.path)
        raise CodecError(f"{self.path}: its samples are not where its header says. Convert it to a plain WAV file.")

    def _stored(self, big_endian: bool) -> Iterator[bytes]:
        return (_stored(block, self.bits, self.kind, big_endian) for block in self.blocks())


@contextmanager
def open_pcm(path: Path) -> Iterator[PcmFile]:
    """Open a .wav, .aiff or .flac file of 8, 16 or 24 bits.

    Raises CodecError for any other format, AudioError as `audio.open_audio`.
    """
    with io.open_audio(path) as file:
        file.check_end()
        yield PcmFile(path, file)


def write(path: Path, blocks: Iterable[np.ndarray], header: FileHeader, envelope: bytes, name: str) -> None:
    """Write blocks of PCM to a file of the kind of its suffix, whole or not at all.

    A file of the kind that was coded is that file again: WAV and AIFF to the byte, FLAC with its metadata. `header`,
    `name`: of the coded file. What is wrong is said before the first block is taken: CodecError for a damaged envelope,
    AudioError for more than a plain WAV file or the disk holds. Later AudioError where writing fails.
    """
    with io.whole_file(path) as file:
        write_to(file, path, blocks, header, envelope, name)


def write_to(
    file: IO[bytes], path: Path, blocks: Iterable[np.ndarray], header: FileHeader, envelope: bytes, name: str
) -> None:
    """`write` to an open file; `path` says the kind, and is for messages."""
    kind = SUFFIXES[path.suffix.lower()]
    known = open_envelope(envelope, name) if envelope and kind == header.container else None
    if kind == "flac":
        _write_flac(file, path, blocks, header, known.head if known else b"")
        return
    if known is None:
        if kind != "wav":
            raise io.AudioError(
                f"{path}: only what was an AIFF file becomes one again; give output=<file>.wav or .flac."
            )
        known = _plain_wav(path, header)
    size, folder = header.pcm_bytes + len(known.head) + len(known.tail), os.path.dirname(file.name)
    if size > (free := shutil.disk_usage(folder or ".").free):
        raise io.AudioError(
            f"{path}: {size:,} bytes do not fit on its disk, which has {free:,} left. Make room, or give another "
            "output=<file>."
        )
    file.write(known.head)
    for block in blocks:
        file.write(_stored(block, header.bits, kind, known.big_endian))
    file.write(known.tail)


def _stored(pcm: np.ndarray, bits: int, kind: str, big_endian: bool) -> bytes:
    """Samples as they lie in a WAV (8 bits unsigned) or AIFF file."""
    if bits == 8:
        return (pcm + 128).astype(np.uint8).tobytes() if kind == "wav" else to_bytes(pcm, 8)
    plain = to_bytes(pcm, bits)
    return np.frombuffer(plain, np.uint8).reshape(-1, bits // 8)[:, ::-1].tobytes() if big_endian else plain


def _plain_wav(path: Path, header: FileHeader) -> Envelope:
    """What stands before and behind the samples of the shortest WAV file."""
    size, frame = header.pcm_bytes, header.n_channels * header.bits // 8
    if size > io.WAV_BYTES:
        raise io.AudioError(f"{path}: {size:,} bytes of audio do not fit into a WAV file; give output=<file>.flac.")
    try:
        fmt = struct.pack(
            "<IHHIIHH", 16, 1, header.n_channels, header.sample_rate, header.sample_rate * frame, frame, header.bits
        )
    except struct.error as error:
        raise io.AudioError(f"{path}: a WAV file cannot have {header.sample_rate} Hz.") from error
    riff = struct.pack("<4sI4s", b"RIFF", 36 + size + size % 2, b"WAVE")
    return Envelope(riff + b"fmt " + fmt + struct.pack("<4sI", b"data", size), bytes(size % 2), False)


def _write_flac(file: IO[bytes], path: Path, blocks: Iterable[np.ndarray], header: FileHeader, metadata: bytes) -> None:
    if not header.frames:
        raise io.AudioError(f"{path}: FLAC cannot hold 0 frames; write .wav.")
    target = Path(file.name)
    # With metadata the file is put together from one that libsndfile writes.
    plain = target.with_suffix(".flac.part") if metadata else target
    try:
        flac = _new_flac(plain, path, header)
        try:
            with flac:
                for block in blocks:
                    flac.write(block << 32 - header.bits)
            # What could not be written when the file was closed is not reported.
            with soundfile.SoundFile(os.fsencode(plain)) as back:
                back.seek(header.frames - 1)
                written = len(back.read(1))
        except soundfile.SoundFileError as error:
            raise io.AudioError(f"{path}: cannot write the file ({error}). Is the disk full?") from error
        if not written:
            raise io.AudioError(f"{path}: cannot write the file to its end. Is the disk full?")
        if metadata:
            with open(plain, "rb") as made:
                with_metadata(made, metadata, file)
    finally:
        if metadata:
            plain.unlink(missing_ok=True)


def suffix_of_kind(kind: str) -> str:
    """The usual suffix of the files of a kind; .wav for "pcm"."""
    return next((suffix for suffix, name in SUFFIXES.items() if name == kind), ".wav")


def flac_bytes(pcm: PcmFile) -> int:
    """The size of the recording as FLAC, at libsndfile's highest level (that of flac -8). AudioError if it has none."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "audio.flac"
        with _new_flac(file, pcm.path, pcm) as flac:
            for block in pcm.blocks():
                flac.write(block << 32 - pcm.bits)
        return file.stat().st_size


def _new_flac(file: Path, path: Path, form: PcmFile | FileHeader) -> soundfile.SoundFile:
    """A FLAC file to write, in the rate, channels and bits of `form`; `path` is for messages."""
    bits = "S8" if form.bits == 8 else form.bits
    try:
        return soundfile.SoundFile(
            os.fsencode(file), "w", form.sample_rate, form.n_channels, f"PCM_{bits}", format="FLAC",
            compression_level=1.0,
        )  # fmt: skip
    except (soundfile.SoundFileError, ValueError, OverflowError) as error:
        raise io.AudioError(
            f"{path}: {form.n_channels} channels at {form.sample_rate} Hz cannot be written as FLAC ({error})."
        ) from error
