"""Audio that is written while it is drawn: `WavStream`, a file that plays at any time, and `PcmPipe`, raw samples."""

import io
import os
import wave
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int16

from stereo_sashimi.audio.io import WAV_BYTES, AudioError, PathLike
from stereo_sashimi.spec import AudioSpec


class WavStream:
    """A 16-bit WAV file that grows, as <name>.part.wav until `finish` gives it its name.

    Its header has the right length after every block. `finish` keeps what was written, also after an error.

    Attributes:
        path: The name in the end.
        part: The name until then.
        frames: How many it holds.

    Raises:
        AudioError: As the methods do, for a full disk, or a file that cannot be made or has gone.
    """

    def __init__(self, path: PathLike, spec: AudioSpec) -> None:
        path = Path(path)
        self.path, self.part, self.frames = path, path.with_name(f"{path.stem}.part{path.suffix}"), 0
        self._most = most_frames(spec)
        try:
            self._file = _File(self.part, "wb")
        except OSError as error:
            raise AudioError(f"{self.part}: cannot write the file ({error.strerror}).") from error
        self._wave = wave.Wave_write(self._file)
        self._wave.setparams((spec.n_channels, 2, spec.sample_rate, 0, "NONE", ""))

    def fits(self, frames: int) -> bool:
        """Whether so many frames more can be written."""
        return self.frames + frames <= self._most

    def write(self, pcm: Int16[np.ndarray, "frames channels"]) -> None:
        """Append frames that fit; a player that opens the file finds them there."""
        try:
            # Writing to a file that was deleted is no error, and there is nothing in the end.
            os.stat(self.part)
            # Puts the length into the header, too.
            self._wave.writeframes(pcm.tobytes())
        except OSError as error:
            raise AudioError(f"{self.part}: cannot write on ({error.strerror}).") from error
        self.frames += len(pcm)

    def finish(self) -> None:
        """Close the file and give it its name."""
        failed = None
        try:
            self._close()
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
            self._close()
        self.part.unlink(missing_ok=True)

    def _close(self) -> None:
        try:
            self._wave.close()
        finally:
            self._file.close()


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


def most_frames(spec: AudioSpec) -> int:
    """Frames of 16 bits that fit into a WAV file."""
    return WAV_BYTES // (2 * spec.n_channels)


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
