"""Integer PCM in and out of audio files (HOUSE law 5); what the integers become is in `quantize.py`.

Files of 16 bits or fewer are read as the integers they hold. Float and lossy files are decoded to float and rounded
here, because a decoder asked for integers wraps around where a sample exceeds full scale.
"""

import io
import os
import secrets
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Float, Int16

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg")

PathLike = str | os.PathLike[str]

# Names of libsndfile. An 8-bit byte becomes (byte - 128) << 8, exactly.
_INTEGER = ("PCM_16", "PCM_U8", "PCM_S8")
WIDE = ("PCM_24", "PCM_32")
_FLOAT = ("FLOAT", "VORBIS", "OPUS", "MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III", "ULAW", "ALAW")
_DOUBLE = ("DOUBLE",)
_FORMATS = {".wav": "WAV", ".flac": "FLAC"}
_LOW, _HIGH = -32768, 32767
# Far above any file: libsndfile reports a number of this size when a stream does not state its length.
_UNKNOWN_FRAMES = 1 << 60
# A WAV file counts its bytes with 32 bits; 1 KiB is left for the header.
WAV_BYTES = (1 << 32) - 1024


class AudioError(ValueError):
    """An audio file cannot be read or written; the message names the file."""


@dataclass(frozen=True)
class AudioInfo:
    """What the header of an audio file says.

    - `path`: the file. `sample_rate`: frames per second. `n_channels`: at least 1. `frames`: 0 or more.
    - `subtype`: libsndfile's name of the sample format, such as PCM_16, FLOAT or VORBIS.
    """

    path: Path
    sample_rate: int
    n_channels: int
    frames: int
    subtype: str


def probe(path: PathLike) -> AudioInfo:
    """Read the header of a file; no samples are decoded, but the last one of FLAC, which does not say how long it is.

    Raises AudioError if the file is missing, empty, not audio, unreadable, or shorter than its header says.
    """
    path = Path(path)
    with _open(path) as file:
        info = _info(path, file)
        if file.format == "FLAC" and info.frames:
            _read(path, file, info.frames - 1, 1, "int16")
        return info


def read_pcm(
    path: PathLike, start: int = 0, frames: int | None = None, *, requantize: bool = False
) -> tuple[Int16[np.ndarray, "frames channels"], int]:
    """Read frames `start` to `start + frames` (None: to the end) as 16-bit PCM, and count the clipped values.

    Integers of 16 and 8 bits come as they are, 8 bits as (byte - 128) << 8. Float and lossy files: rint(x * 32768),
    clipped to [-32768, 32767]. 24 and 32 bit files are refused, or with `requantize` rounded to 16 bits and clipped.
    The array is C-contiguous.

    Raises AudioError for a file that `probe` refuses, a range outside the file, NaN or infinity, data that end early,
    a sample format that is not listed here, and 24 or 32 bits without `requantize`.
    """
    path = Path(path)
    with _open(path) as file:
        info = _info(path, file)
        count = info.frames - start if frames is None else frames
        if start < 0 or count < 0 or start + count > info.frames:
            raise AudioError(
                f"{path}: frames {start} to {'the end' if frames is None else start + frames} were asked for, but the "
                f"file has {info.frames} frames."
            )
        if info.subtype in _INTEGER:
            return _read(path, file, start, count, "int16"), 0
        check_readable(info, requantize=requantize)
        if info.subtype in WIDE:
            # libsndfile puts 24 bits at the top of the 32, so one divisor serves both.
            return _clip(np.rint(_read(path, file, start, count, "int32") / 65536.0))
        samples = _read(path, file, start, count, "float64" if info.subtype in _DOUBLE else "float32")
        finite = np.isfinite(samples)
        if not finite.all():
            frame = start + int(np.argwhere(~finite)[0][0])
            raise AudioError(f"{path}: NaN or infinity in frame {frame}; write the file again from its source.")
        return float_to_pcm(samples)


def check_readable(info: AudioInfo, *, requantize: bool = False) -> None:
    """Raise AudioError for a sample format that `read_pcm` does not take, as 24 or 32 bits without `requantize`."""
    known = _INTEGER + WIDE + _FLOAT + _DOUBLE
    if info.subtype not in known:
        raise AudioError(
            f"{info.path}: samples of format {info.subtype}, which is not one of {', '.join(known)}.\n"
            "  Convert the file to 16-bit WAV or FLAC."
        )
    if info.subtype in WIDE and not requantize:
        raise AudioError(
            f"{info.path}: {info.subtype[4:]}-bit samples; 16 bits or fewer are read without loss.\n"
            "  Set dataset.requantize=true to round the samples to 16 bits."
        )


def float_to_pcm(x: Float[np.ndarray, "*shape"]) -> tuple[Int16[np.ndarray, "*shape"], int]:
    """16-bit PCM of samples whose full scale is 1: rint(x * 32768), halves to even, clipped to [-32768, 32767].

    Gives the integers and how many of them were clipped; 1.0 itself is clipped, to 32767.
    Raises ValueError for NaN or infinity, or if the array is not of floating point numbers.
    """
    if not np.issubdtype(x.dtype, np.floating):
        raise ValueError(f"float_to_pcm takes floating point samples (full scale 1.0); got {x.dtype}.")
    if not np.isfinite(x).all():
        raise ValueError("float_to_pcm takes finite samples; got NaN or infinity.")
    # The product is exact unless it overflows, and an overflow is clipped like any other large value.
    with np.errstate(over="ignore"):
        return _clip(np.rint(x.astype(np.promote_types(x.dtype, np.float32)) * 32768))


def write_pcm(path: PathLike, pcm: Int16[np.ndarray, "frames channels"], sample_rate: int, *, bits: int = 16) -> None:
    """Write a `.wav` or `.flac` file (by suffix); it appears under its name only when it is complete.

    `bits`: 16, or 8, which keeps the upper byte of each sample.

    Raises AudioError for another suffix or array, for more than a WAV file can hold (4 GiB), and if the file cannot
    be written, for instance because the disk is full; no partial file is left behind.
    """
    path = Path(path)
    if path.suffix.lower() not in _FORMATS:
        raise AudioError(f"{path}: 16-bit audio is written as .wav or .flac; got suffix {path.suffix!r}.")
    if pcm.dtype != np.int16 or pcm.ndim != 2 or pcm.shape[1] < 1:
        raise AudioError(f"{path}: write_pcm takes int16 (frames, channels); got {pcm.dtype} {pcm.shape}.")
    kind = _FORMATS[path.suffix.lower()]
    if kind == "WAV" and pcm.nbytes > WAV_BYTES:
        raise AudioError(f"{path}: {pcm.nbytes} bytes of audio do not fit into a WAV file; write .flac.")
    # Encoded in memory: libsndfile does not report a full disk, the file object below does.
    encoded = io.BytesIO()
    try:
        subtype = "PCM_16" if bits == 16 else "PCM_U8" if kind == "WAV" else "PCM_S8"
        soundfile.write(encoded, pcm, sample_rate, format=kind, subtype=subtype)
    except (soundfile.SoundFileError, ValueError, OverflowError) as error:
        raise AudioError(
            f"{path}: {pcm.shape[1]} channels at {sample_rate} Hz cannot be written as {kind} ({error})."
        ) from error
    if not encoded.tell():
        raise AudioError(f"{path}: FLAC cannot hold 0 frames; write .wav.")
    write_whole(path, encoded.getbuffer())


def write_whole(path: PathLike, content: bytes | memoryview) -> None:
    """Write a file under a temporary name in the same folder and rename it when it is complete.

    Raises AudioError naming the file if that fails, for instance because the disk is full; nothing is left behind.
    """
    path = Path(path)
    temporary = path.parent / f".{secrets.token_hex(8)}.part"
    try:
        with open(temporary, "xb") as file:
            file.write(content)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise AudioError(f"{path}: cannot write the file ({error.strerror}).") from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _open(path: Path) -> soundfile.SoundFile:
    try:
        with open(path, "rb") as raw:
            size = os.fstat(raw.fileno()).st_size
            if size == 0:
                raise AudioError(f"{path}: the file is empty (0 bytes).\n  Fetch or make it again.")
            missing = _missing_bytes(raw, size)
    except FileNotFoundError:
        raise AudioError(f"{path}: there is no such file.") from None
    except OSError as error:
        raise AudioError(f"{path}: cannot read the file ({error.strerror}).") from error
    if missing:
        raise AudioError(
            f"{path}: the file ends early; its header tells of {missing} bytes more than there are.\n"
            "  It was cut off while it was copied or written: fetch or make it again."
        )
    try:
        return soundfile.SoundFile(str(path))
    except (soundfile.SoundFileError, TypeError) as error:
        # A TypeError comes for the suffix .raw, where soundfile wants the format from the caller.
        raise AudioError(
            f"{path}: not an audio file that libsndfile can read ({error}).\n"
            "  Convert it to 16-bit WAV or FLAC, or take it out of the folder."
        ) from error


def _info(path: Path, file: soundfile.SoundFile) -> AudioInfo:
    if file.frames < 0 or file.frames >= _UNKNOWN_FRAMES:
        raise AudioError(f"{path}: the file does not state its length.\n  Write it again as 16-bit WAV or FLAC.")
    return AudioInfo(path, file.samplerate, file.channels, file.frames, file.subtype)


def _read(path: Path, file: soundfile.SoundFile, start: int, frames: int, dtype: str) -> np.ndarray:
    try:
        if start:
            file.seek(start)
        samples = file.read(frames, dtype=dtype, always_2d=True)
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


def _clip(values: np.ndarray) -> tuple[np.ndarray, int]:
    """Whole numbers as int16, and how many of them lay outside."""
    clipped = int(np.count_nonzero((values < _LOW) | (values > _HIGH)))
    return np.clip(values, _LOW, _HIGH).astype(np.int16), clipped


def _missing_bytes(raw: io.BufferedReader, size: int) -> int:
    """Bytes that a WAV or Ogg file lacks at its end; libsndfile reads such files without a word."""
    head = raw.read(12)
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
