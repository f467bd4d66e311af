"""A WAV file that is heard while it is made: the part of it that is there already, and the rest as it comes."""

import io
import wave
from collections.abc import Iterator
from threading import Condition

import numpy as np
from jaxtyping import Int16

from stereo_sashimi.spec import AudioSpec

# A browser that has gone is noticed when the next bytes are handed to it.
_WAIT_S = 5.0


class LiveWav:
    """A 16-bit WAV file of so many frames; one thread writes, others read. It is shorter if `close` comes early."""

    def __init__(self, spec: AudioSpec, n_frames: int) -> None:
        head = io.BytesIO()
        writer = wave.Wave_write(head)
        writer.setparams((spec.n_channels, 2, spec.sample_rate, n_frames, "NONE", ""))
        writer.writeframesraw(b"")
        self._content, self._closed, self._changed = bytearray(head.getvalue()), False, Condition()

    def write(self, pcm: Int16[np.ndarray, "frames channels"]) -> None:
        """Append frames."""
        with self._changed:
            self._content += pcm.astype("<i2").tobytes()
            self._changed.notify_all()

    def close(self) -> None:
        """No more frames come."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def read(self) -> Iterator[bytes]:
        """The file from its start to its end; waits for what is not there yet."""
        at, closed = 0, False
        while not closed:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or len(self._content) > at, _WAIT_S)  # noqa: B023
                part, closed = bytes(self._content[at:]), self._closed
            at += len(part)
            yield part
