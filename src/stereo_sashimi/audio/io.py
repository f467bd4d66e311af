"""Integer PCM in and out of audio files; what the integers become is in `quantize.py`.

Files of 16 bits or fewer are read as the integers they hold. Float and lossy files are decoded to float and rounded
here, because a decoder asked for integers wraps around where a sample exceeds full scale.
"""

import io
import os
import secrets
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Int16

from stereo_sashimi.audio.quantize import clipped_to_pcm, float_to_pcm

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg")
# Formats that are written, by suffix.
FORMATS = {"wav": "WAV", "flac": "FLAC"}

PathLike = str | os.PathLike[str]
Pcm = Int16[np.ndarray, "frames channels"]

# Names of libsndfile. An 8-bit byte becomes (byte - 128) << 8, exactly.
_INTEGER = ("PCM_16", "PCM_U8", "PCM_S8")
WIDE = ("PCM_24", "PCM_32")
_FLOAT = ("FLOAT", "VORBIS", "OPUS", "MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III", "ULAW", "ALAW")
_KNOWN = (*_INTEGER, *WIDE, *_FLOAT, "DOUBLE")
# Far above any file: libsndfile reports a number of this size when a stream does not state its length.
_UNKNOWN_FRAMES = 1 << 60
# A WAV file counts its bytes with 32 bits; 1 KiB is left for the header.
WAV_BYTES = (1 << 32) - 1024


class AudioError(ValueError):
    """An audio file cannot be read or written; the message names the file."""


@dataclass(frozen=True)
class AudioInfo:
    """What the header of an audio file says: frames per second, at least 1 channel, 0 or more frames.

    `subtype` is libsndfile's name of the sample format, such as PCM_16, FLOAT or VORBIS.
    """

    path: Path
    sample_rate: int
    n_channels: int
    frames: int
    subtype: str


class AudioReader:
    """An open audio file, from `open_audio`: its `info`, and as many reads as are needed."""

    def __init__(self, path: Path, file: soundfile.SoundFile) -> None:
        if file.frames < 0 or file.frames >= _UNKNOWN_FRAMES:
            raise AudioError(f"{path}: the file does not state its length.\n  Write it again as 16-bit WAV or FLAC.")
        self.info = AudioInfo(path, file.samplerate, file.channels, file.frames, file.subtype)
        self.file = file

    def check_end(self) -> None:
        """Raise AudioError if a FLAC file is cut off; its last frame is decoded, as it does not say how long it is."""
        if self.file.format == "FLAC" and self.info.frames:
            self.decode(self.info.frames - 1, 1, "int16")

    def read(self, start: int = 0, frames: int | None = None, *, requantize: bool = False) -> tuple[Pcm, int]:
        """Frames and clipped values; arguments and errors are those of `read_pcm`."""
        info = self.info
        count = info.frames - start if frames is None else frames
        if start < 0 or count < 0 or start + count > info.frames:
            raise AudioError(
                f"{info.path}: frames {start} to {'the end' if frames is None else start + frames} were asked for, but "
                f"the file has {info.frames} frames."
            )
        if info.subtype in _INTEGER:
            return self.decode(start, count, "int16"), 0
        check_readable(info, requantize=requantize)
        if info.subtype in WIDE:
            # libsndfile puts 24 bits at the top of the 32, so one divisor serves both.
            return clipped_to_pcm(np.rint(self.decode(start, count, "int32") / 65536.0))
        samples = self.decode(start, count, "float64" if info.subtype == "DOUBLE" else "float32")
        finite = np.isfinite(samples)
        if not finite.all():
            frame = start + int(np.argwhere(~finite)[0][0])
            raise AudioError(f"{info.path}: NaN or infinity in frame {frame}; write the file again from its source.")
        return float_to_pcm(samples)

    def decode(self, start: int, frames: int, dtype: str) -> np.ndarray:
        """Frames as libsndfile decodes them to a type. Raises AudioError for a file that is damaged or cut off."""
        path = self.info.path
        try:
            if start != self.file.tell():
                self.file.seek(start)
            samples = self.file.read(frames, dtype=dtype, always_2d=True)
        except soundfile.SoundFileError as error:
            raise AudioError(
                f"{path}: cannot decode frames {start} to {start + frames} ({error}).\n"
                "  The file is damaged or was cut off: fetch or make it again."
            ) from error
        if len(samples) != frames:
            raise AudioError(
                f"{path}: the file ends early; frames {start} to {start + frames} were asked for, "
                f"{len(samples)} could be read.\n  Fetch or make the file again."
            )
        return np.ascontiguousarray(samples)


@contextmanager
def open_audio(path: PathLike) -> Iterator[AudioReader]:
    """Open a file for reading, once.

    Raises:
        AudioError: It is missing, no regular file, empty, not audio, unreadable, cut off, or without a length.
    """
    path = Path(path)
    try:
        # Opening a pipe waits for a writer, for ever if there is none.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise AudioError(f"{path}: not a file but a pipe, device or folder.\n  Take it out, or give a file.")
        raw = open(path, "rb")  # noqa: SIM115
        size, missing = os.fstat(raw.fileno()).st_size, _missing_bytes(raw)
    except FileNotFoundError:
        raise AudioError(f"{path}: there is no such file.") from None
    except OSError as error:
        raise AudioError(f"{path}: cannot read the file ({error.strerror}).") from error
    with raw:
        if size == 0:
            raise AudioError(f"{path}: the file is empty (0 bytes).\n  Fetch or make it again.")
        if missing:
            raise AudioError(
                f"{path}: the file ends early; its header tells of {missing} bytes more than there are.\n"
                "  It was cut off while it was copied or written: fetch or make it again."
            )
        # libsndfile reads on from here by itself.
        os.lseek(raw.fileno(), 0, os.SEEK_SET)
        try:
            file = soundfile.SoundFile(raw.fileno(), closefd=False)
        except soundfile.SoundFileError as error:
            reason = str(getattr(error, "error_string", error)).rstrip(".")
            raise AudioError(
                f"{path}: not an audio file that libsndfile can read ({reason}).\n"
                "  Convert it to 16-bit WAV or FLAC, or take it out of the folder."
            ) from error
        with file:
            yield AudioReader(path, file)


def probe(path: PathLike) -> AudioInfo:
    """Read the header of a file, and the last frame of FLAC. Raises AudioError as `open_audio`, or if FLAC is cut."""
    with open_audio(path) as file:
        file.check_end()
        return file.info


def read_pcm(path: PathLike, start: int = 0, frames: int | None = None, *, requantize: bool = False) -> tuple[Pcm, int]:
    """Read a range of a file as 16-bit PCM, C-contiguous, and count the clipped values.

    Integers of 16 and 8 bits come as they are, 8 bits as (byte - 128) << 8. Float and lossy files: rint(x * 32768),
    clipped to [-32768, 32767].

    Args:
        start: First frame.
        frames: Number of frames; None reads to the end.
        requantize: Round 24 and 32 bits to 16, and clip; without it they are refused.

    Raises:
        AudioError: As `open_audio`; a range outside the file, NaN or infinity, data that end early, or samples that
            `check_readable` refuses.
    """
    with open_audio(path) as file:
        return file.read(start, frames, requantize=requantize)


def check_readable(info: AudioInfo, *, requantize: bool = False) -> None:
    """Raise AudioError for a sample format that is not read, as 24 or 32 bits without `requantize`."""
    if info.subtype not in _KNOWN:
        raise AudioError(
            f"{info.path}: samples of format {info.subtype}, which is not one of {', '.join(_KNOWN)}.\n"
            "  Convert the file to 16-bit WAV or FLAC."
        )
    if info.subtype in WIDE and not requantize:
        raise AudioError(
            f"{info.path}: {info.subtype[4:]}-bit samples; 16 bits or fewer are read without loss.\n"
            "  Set dataset.requantize=true to round the samples to 16 bits."
        )


def write_pcm(path: PathLike, pcm: Pcm, sample_rate: int) -> None:
    """Write a `.wav` or `.flac` file (by suffix); it appears under its name only when it is complete.

    Args:
        pcm: int16 (frames, channels).

    Raises:
        AudioError: Another suffix or array, more than a WAV file can hold (4 GiB), or a file that cannot be written,
            for instance because the disk is full; no partial file is left behind.
    """
    path = Path(path)
    kind = FORMATS.get(path.suffix.lower()[1:])
    if kind is None:
        raise AudioError(f"{path}: 16-bit audio is written as .wav or .flac; got suffix {path.suffix!r}.")
    if pcm.dtype != np.int16 or pcm.ndim != 2 or pcm.shape[1] < 1:
        raise AudioError(f"{path}: write_pcm takes int16 (frames, channels); got {pcm.dtype} {pcm.shape}.")
    if kind == "WAV" and pcm.nbytes > WAV_BYTES:
        raise AudioError(f"{path}: {pcm.nbytes} bytes of audio do not fit into a WAV file; write .flac.")
    # Encoded in memory: libsndfile does not report a full disk, the file object below does.
    encoded = io.BytesIO()
    try:
        soundfile.write(encoded, pcm, sample_rate, format=kind, subtype="PCM_16")
    except (soundfile.SoundFileError, ValueError, OverflowError) as error:
        raise AudioError(
            f"{path}: {pcm.shape[1]} channels at {sample_rate} Hz cannot be written as {kind} ({error})."
        ) from error
    if not encoded.tell():
        raise AudioError(f"{path}: FLAC cannot hold 0 frames; write .wav.")
    write_whole(path, encoded.getbuffer())


def write_whole(path: PathLike, content: bytes | memoryview) -> None:
    """Write a file as `whole_file` does."""
    with whole_file(path) as file:
        file.write(content)


@contextmanager
def whole_file(path: PathLike) -> Iterator[io.BufferedWriter]:
    """A file to write under a temporary name in the same folder; it is renamed when the block has ended.

    Raises AudioError naming the file if that fails, for instance because the disk is full; after any error nothing is
    left behind.
    """
    path = Path(path)
    temporary = path.parent / f".{secrets.token_hex(8)}.part"
    try:
        with open(temporary, "xb") as file:
            yield file
        os.replace(temporary, path)
    except OSError as error:
        raise AudioError(f"{path}: cannot write the file ({error.strerror}).") from error
    finally:
        temporary.unlink(missing_ok=True)


def _missing_bytes(raw: io.BufferedReader) -> int:
    """Bytes that a WAV or Ogg file lacks at its end; 0 for a whole file and for other formats."""
    size, head = os.fstat(raw.fileno()).st_size, raw.read(12)
    if head[:4] in (b"RIFF", b"RF64", b"RIFX") and head[8:] == b"WAVE":
        return _missing_wav_bytes(raw, size, ">" if head[:4] == b"RIFX" else "<")
    if head[:4] == b"OggS":
        return _missing_ogg_bytes(raw, size)
    return 0


def _missing_wav_bytes(raw: io.BufferedReader, size: int, order: str) -> int:
    """EBU Tech 3306: chunks of an id, a 32-bit size and a body; in RF64 the size of `data` is in `ds64`."""
    long_size = None
    while len(header := raw.read(8)) == 8:
        chunk, length = struct.unpack(f"{order}4sI", header)
        body = raw.tell()
        if chunk == b"ds64" and length >= 16:
            long_size = struct.unpack(f"{order}8xQ", raw.read(16))[0]
        if chunk == b"data":
            if length == 0xFFFFFFFF:
                # Without ds64 the writer was a pipe and did not know the length: what is there counts.
                length = size - body if long_size is None else long_size
            return max(0, body + length - size)
        raw.seek(body + length + length % 2)
    return 0


def _missing_ogg_bytes(raw: io.BufferedReader, size: int) -> int:
    """RFC 3533: a page is 27 bytes, a table of segment lengths (its size is byte 26) and the segments."""
    # A page has at most 65,307 bytes, so the last one starts in here.
    raw.seek(max(0, size - 65307))
    tail = raw.read()
    page = tail.rfind(b"OggS\0")
    if page < 0:
        return 0
    table_end = page + 27 + (tail[page + 26] if page + 26 < len(tail) else 0)
    return max(0, table_end + sum(tail[page + 27 : table_end]) - len(tail))
