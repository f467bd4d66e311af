"""Audio that is written while it is made: `LiveFile`, a recording that plays at any time, and `PcmPipe`, raw samples.

A WAV file has its right length after every block. FLAC states none until it is finished, like any FLAC stream.
"""

import io
import os
import wave
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from jaxtyping import Int16

from stereo_sashimi.audio.io import WAV_BYTES, AudioError, PathLike, read_pcm
from stereo_sashimi.spec import AudioSpec

FORMATS = ("wav", "flac")


class LiveFile:
    """A 16-bit .wav or .flac file (by suffix) that grows, as <name>.part.<suffix> until `finish` gives it its name.

    - `path`: the name in the end. `spec`: the model's format.

    `frames` is how many it holds. Raises AudioError, as its methods do, where the disk is full, or the file cannot be
    made or has gone; `finish` still keeps what was written until then.
    """

    def __init__(self, path: PathLike, spec: AudioSpec) -> None:
        path = Path(path)
        if path.suffix not in (f".{name}" for name in FORMATS):
            raise AudioError(f"{path}: 16-bit audio is written as .wav or .flac; got suffix {path.suffix!r}.")
        self.path, self.part, self.frames = path, path.with_name(f"{path.stem}.part{path.suffix}"), 0
        self._most = most_frames(path.suffix[1:], spec)
        try:
            self._writer = (_Wav if path.suffix == ".wav" else _Flac)(self.part, spec)
        except OSError as error:
            raise AudioError(f"{self.part}: cannot write the file ({error.strerror}).") from error

    def fits(self, frames: int) -> bool:
        """Whether so many frames more can be written."""
        return self._most is None or self.frames + frames <= self._most

    def write(self, pcm: Int16[np.ndarray, "frames channels"]) -> None:
        """Append frames that fit; a player that opens the file finds them there (FLAC: up to 4096 frames later)."""
        try:
            # Writing to a file that was deleted is no error, and there is nothing in the end.
            os.stat(self.part)
            self._writer.write(np.ascontiguousarray(pcm))
        except OSError as error:
            raise AudioError(f"{self.part}: cannot write on ({error.strerror}).") from error
        self.frames += len(pcm)

    def finish(self) -> None:
        """Close the file and give it its name, also after an error."""
        failed = None
        try:
            kept = self._writer.close()
            self.frames = self.frames if kept is None else kept
        except OSError as error:
            failed = error
        try:
            os.replace(self.part, self.path)
        except OSError as error:
            if self.part.exists():
                where = f"What was written is in {self.part}."
                raise AudioError(f"{self.path}: cannot give the file its name ({error.strerror}). {where}") from error
            failed = failed or error
        if failed is not None:
            raise AudioError(f"{self.path}: cannot write the file to its end ({failed.strerror}).") from failed

    def discard(self) -> None:
        """Close the file and delete it."""
        with suppress(OSError):
            self._writer.close()
        self.part.unlink(missing_ok=True)


class PcmPipe:
    """Raw PCM, signed 16-bit little-endian, channels interleaved, into a file descriptor, without a buffer.

    `write` raises BrokenPipeError when the reader has gone.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, pcm: Int16[np.ndarray, "frames channels"]) -> None:
        """Write frames, as soon as the reader takes them."""
        rest = memoryview(pcm.astype("<i2").tobytes())
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]


def most_frames(suffix: str, spec: AudioSpec) -> int | None:
    """Frames that fit into a file of this format, `wav` or `flac`; None: more than anyone will make."""
    return WAV_BYTES // (2 * spec.n_channels) if suffix == "wav" else None


class _File(io.FileIO):
    """Without a buffer; of a write that fails nothing is left at the end of the file."""

    _size = 0

    def write(self, data: Any) -> int:
        rest = memoryview(data).cast("B")
        count = len(rest)
        try:
            while rest:
                rest = rest[super().write(rest) :]
        except OSError:
            self.truncate(self._size)
            raise
        self._size = max(self._size, self.tell())
        return count


class _Wav:
    """The standard library's writer puts the length into the header with each `writeframes`."""

    def __init__(self, path: Path, spec: AudioSpec) -> None:
        self._file = _File(path, "wb")
        self._wave = wave.Wave_write(self._file)
        self._wave.setparams((spec.n_channels, 2, spec.sample_rate, 0, "NONE", ""))

    def write(self, pcm: np.ndarray) -> None:
        self._wave.writeframes(pcm.tobytes())

    def close(self) -> None:
        try:
            self._wave.close()
        finally:
            self._file.close()


class _FlacFile(_File):
    """libsndfile calls `write`, and loses what it raises: the error is kept in `error`."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.error = self.error or error
            return 0


class _Flac:
    def __init__(self, path: Path, spec: AudioSpec) -> None:
        self._path, self._file, self._given = path, _FlacFile(path, "wb"), 0
        try:
            self._sound = soundfile.SoundFile(
                self._file, "w", spec.sample_rate, spec.n_channels, "PCM_16", format="FLAC"
            )
        except soundfile.SoundFileError as error:
            self._file.close()
            path.unlink()
            raise AudioError(
                f"{path}: {spec.n_channels} channels at {spec.sample_rate} Hz cannot be written as FLAC ({error})."
            ) from error

    def write(self, pcm: np.ndarray) -> None:
        self._given += len(pcm)
        try:
            self._sound.write(pcm)
        except (AssertionError, soundfile.SoundFileError):
            # How soundfile and libsndfile take a write that fell short.
            if self._file.error is None:
                raise
        if self._file.error is not None:
            raise self._file.error

    def close(self) -> int | None:
        """The frames that can be read, where that is not what was written."""
        known = self._file.error
        # The last frames are encoded here.
        self._sound.close()
        self._file.close()
        kept = None if self._file.error is None else _state_length(self._path, self._given)
        if known is None and self._file.error is not None:
            raise self._file.error
        return kept


def _state_length(path: Path, most: int) -> int:
    """Write into the header of a FLAC file that was cut off how many frames it has, `most` or fewer; returns that.

    STREAMINFO (RFC 9639, section 8.2) has the frames of a block in bytes 8 and 9 of the file, and the frames of all in
    36 bits: the low half of byte 21, and bytes 22 to 25.
    """
    with open(path, "rb+", buffering=0) as raw:
        head = raw.read(22)
        block = int.from_bytes(head[8:10], "big")
        frames = most // block * block
        while True:
            raw.seek(21)
            raw.write(((head[21] & 0xF0) << 32 | frames).to_bytes(5, "big"))
            if frames == 0 or _has(path, frames):
                return frames
            frames -= block


def _has(path: Path, frames: int) -> bool:
    try:
        return len(read_pcm(path, frames - 1, 1)[0]) == 1
    except AudioError:
        return False
