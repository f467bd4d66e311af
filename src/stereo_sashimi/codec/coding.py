"""encode, decode: PCM <-> the bytes of an .ssc file, without loss, by the probabilities of a model.

`batch_coder.py` runs the model and the range coder, `container.py` has the format, `probe.py` what refuses other
machines; `pcm_files.py` reads and writes audio files. Recordings are read, coded and written a few segments at a time.
"""

import hashlib
import io
import zlib
from collections.abc import Iterator
from typing import IO, Protocol

import numpy as np

from stereo_sashimi.codec import container
from stereo_sashimi.codec.batch_coder import Progress
from stereo_sashimi.codec.coders import MAX_BATCH, Coders
from stereo_sashimi.codec.container import CodecError, FileHeader, Reader, Writer
from stereo_sashimi.codec.parts import batches, decode_parts, encode_segments, to_bytes
from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.version import __version__

# Chosen between these, so that short recordings fill a batch and each segment outweighs its cold start.
SHORTEST, LONGEST = 1 << 14, 1 << 17
# Of models that go on learning; a shorter recording is cut so that every thread has something to do.
SHORTEST_FREE = 1 << 19


class PcmSource(Protocol):
    """A recording that can be read in parts.

    - `kind`: one of `container.KINDS`. `bits`: 8, 16 or 24. `envelope`: what else is to be kept.
    """

    kind: str
    sample_rate: int
    n_channels: int
    bits: int
    frames: int
    envelope: bytes

    def read(self, first: int, count: int) -> np.ndarray:
        """int32 (count, channels): samples from -2**(bits - 1) on."""


class _PcmArray:
    """A recording in memory."""

    def __init__(self, pcm: np.ndarray, sample_rate: int, bits: int, envelope: bytes) -> None:
        self.kind, self._pcm = "pcm", pcm
        self.frames, self.n_channels = pcm.shape
        self.sample_rate, self.bits, self.envelope = sample_rate, bits, envelope

    def read(self, first: int, count: int) -> np.ndarray:
        part = self._pcm[first : first + count].astype(np.int32)
        return part >> 8 if self.bits == 8 else part


def encode(
    model: LanguageModel,
    pcm: np.ndarray,
    *,
    sample_rate: int | None = None,
    bits: int | None = None,
    segment_frames: int | None = None,
    lanes: int | None = None,
    verify: bool = True,
    envelope: bytes = b"",
    on_frames: Progress = None,
) -> bytes:
    """Code a recording; `decode` with the same model gives the same array.

    A segment is stored as one frame where all its frames are equal, and as PCM where the model needs more bits.

    Args:
        model: Its codes must be PCM. Experts without a network code any channels and bits, other models their own.
        pcm: int16 (frames, channels), 0 frames or more, of 8 bits multiples of 256 (`audio.read_pcm` gives such arrays
            for 8-bit files); of 24 bits int32 from -2**23 on.
        sample_rate: Of the recording, kept in the file; None for the model's. Another one is coded without loss like
            any.
        bits: 8, 16 or 24; None for the model's.
        segment_frames: The model starts anew at each segment, and each can be decoded alone; 1 to 2**20, fewer of
            more than 32 channels (`container.most_frames`). None: by the length of the recording, longer with adaptive
            experts, which go on learning.
        lanes: Segments coded at once, 1 to 256; None: 32, or as many as threads for experts without a network.
        verify: Decode everything again and compare.
        envelope: Bytes to be kept beside the samples.
        on_frames: Called with numbers of frames that were coded.

    Raises:
        CodecError: The model or the array cannot be coded.
    """
    spec = model.spec
    bits, rate = spec.bits if bits is None else bits, spec.sample_rate if sample_rate is None else sample_rate
    _check_pcm(pcm, bits)
    file = io.BytesIO()
    source = _PcmArray(pcm, rate, bits, envelope)
    encode_to(file, model, source, segment_frames=segment_frames, lanes=lanes, verify=verify, on_frames=on_frames)
    return file.getvalue()


def encode_to(
    file: IO[bytes],
    model: LanguageModel,
    source: PcmSource,
    *,
    name: str = "",
    segment_frames: int | None = None,
    lanes: int | None = None,
    verify: bool = True,
    on_frames: Progress = None,
) -> int:
    """Code a recording into a file that can seek; the bytes written. As `encode`, in bounded memory.

    `name`: of a shipped model, for the header.
    """
    if lanes is not None:
        _check_count("lanes", lanes, MAX_BATCH)
    coders = Coders(model, source.bits, source.n_channels, lanes)
    if segment_frames is None:
        segment_frames = _segment_frames(model, source, coders.lanes)
    _check_count("segment_frames", segment_frames, container.most_frames(source.n_channels))
    if not 1 <= source.sample_rate < 1 << 32:
        raise CodecError(f"a recording has 1 to {(1 << 32) - 1} Hz; got {source.sample_rate}.")
    if source.frames > container.MAX_FRAMES:
        raise CodecError(f"a recording has at most {container.MAX_FRAMES} frames; got {source.frames}. Cut it.")
    if len(source.envelope) > container.MAX_ENVELOPE:
        raise CodecError(
            f"an envelope has at most {container.MAX_ENVELOPE} bytes; got {len(source.envelope)}. Keep them elsewhere."
        )
    header = FileHeader(
        version=container.VERSION,
        container=source.kind,
        sample_rate=source.sample_rate,
        n_channels=source.n_channels,
        bits=source.bits,
        frames=source.frames,
        segment_frames=segment_frames,
        model=name,
        weights=coders.weights,
        probe=coders.probe,
        pcm="",
        envelope=0,
        package=__version__,
    )
    writer, digest = Writer(file, header, source.envelope), hashlib.sha256()
    for numbers in batches(header, range(header.n_segments), coders):
        segments = [source.read(i * segment_frames, header.length(i)) for i in numbers]
        parts = encode_segments(coders, header, segments, on_frames)
        if verify:
            back = decode_parts(coders, header, parts, list(map(len, segments)), None)
            if not all(map(np.array_equal, segments, back)):
                raise CodecError("a segment does not decode to itself on this machine; nothing was written.")
        for pcm, own in zip(segments, parts, strict=True):
            digest.update(to_bytes(pcm, header.bits))
            for part in own:
                writer.add(part)
    writer.close(digest.hexdigest())
    return writer.size


def decode(
    model: LanguageModel,
    data: bytes,
    *,
    first: int = 0,
    frames: int | None = None,
    name: str = "the data",
    on_frames: Progress = None,
) -> np.ndarray:
    """The recording in a file's bytes, or a part of it: (frames, channels), int16, of 24 bits int32, as `encode` took.

    Args:
        model: The one that coded it.
        data: The bytes.
        first: First frame of the part that is wanted, for which no other segments than its own are decoded.
        frames: Length of that part; None to the end.
        name: Of the file, for messages.
        on_frames: As in `encode`.

    Raises:
        CodecError: Before anything is decoded, for bytes that are no such file, damaged, or of another model, and where
            this machine computes otherwise than the encoder's; behind it if the samples are not those coded. More
            frames than fit into memory, which a small file may claim.
    """
    reader = Reader(io.BytesIO(data), name)
    header, at = reader.header, 0
    blocks = decode_blocks(model, reader, first=first, frames=frames, on_frames=on_frames)
    count = header.frames - first if frames is None else frames
    try:
        pcm = np.empty((count, header.n_channels), np.int32 if header.bits > 16 else np.int16)
    except (MemoryError, ValueError):
        raise CodecError(
            f"{count} frames of {name} do not fit into memory. Ask for a part (first, frames), or use "
            "codec.decode_blocks."
        ) from None
    for block in blocks:
        pcm[at : at + len(block)] = block << 8 if header.bits == 8 else block
        at += len(block)
    return pcm


def decode_blocks(
    model: LanguageModel, reader: Reader, *, first: int = 0, frames: int | None = None, on_frames: Progress = None
) -> Iterator[np.ndarray]:
    """The recording in blocks of a segment at most, int32 (frames, channels) with samples from -2**(bits - 1) on.

    In bounded memory, whatever length a file claims. Whether the whole is what was coded is known, and CodecError
    raised, behind the last block only.
    """
    header, name = reader.header, reader.name
    last = header.frames if frames is None else first + frames
    if not 0 <= first <= last <= header.frames:
        raise CodecError(f"frames {first} to {last} were asked for, and {name} has {header.frames}.")
    return _blocks(_coders_of(model, reader), reader, range(first, last), on_frames)


def _blocks(coders: Coders, reader: Reader, wanted: range, on_frames: Progress) -> Iterator[np.ndarray]:
    header, name, digest = reader.header, reader.name, hashlib.sha256()
    size = header.segment_frames
    every = range(wanted.start // size, -(-wanted.stop // size) if wanted else wanted.start // size)
    for numbers in batches(header, every, coders):
        parts = [reader.parts(i) for i in numbers]
        batch = decode_parts(coders, header, parts, [header.length(i) for i in numbers], on_frames)
        for i, own in zip(numbers, parts, strict=True):
            # Nothing of this batch is kept while the next one is decoded.
            pcm = batch.pop(0)
            for channels, part in zip(header.pairs, own, strict=True):
                if zlib.crc32(to_bytes(pcm[:, channels], header.bits)) != part.crc:
                    raise CodecError(
                        f"{name}: segment {i} does not decode to what was coded. Nothing of it can be used."
                    )
            digest.update(to_bytes(pcm, header.bits))
            yield pcm[max(0, wanted.start - i * size) : wanted.stop - i * size]
    if len(every) == header.n_segments and digest.hexdigest() != header.pcm:
        raise CodecError(f"{name} does not decode to the samples that were coded. Nothing of it can be used.")


def _coders_of(model: LanguageModel, reader: Reader) -> Coders:
    """The coders for a file, after a look whether this model and this machine are those of the encoder."""
    header, name = reader.header, reader.name
    try:
        coders = Coders(model, header.bits, header.n_channels)
    except CodecError as error:
        raise CodecError(f"{name} was coded with another model ({error})") from error
    if coders.weights != header.weights:
        raise CodecError(
            f"{name} was coded with another model (SHA-256 of its weights {header.weights[:12]}..). Give that one: "
            "checkpoint=.."
        )
    if coders.probe != header.probe:
        raise CodecError(
            f"{name} cannot be decoded here: this machine, or its versions of stereo-sashimi, torch or numba, computes "
            f"otherwise than the one that coded it (stereo-sashimi {header.package}). Nothing was written."
        )
    return coders


def _segment_frames(model: LanguageModel, source: PcmSource, lanes: int) -> int:
    frames, most = source.frames, container.most_frames(source.n_channels)
    if model.experts is None:
        return min(max(-(-frames // lanes), SHORTEST), LONGEST, most)
    # Experts go on learning for as long as they are let, and find more and more that they have heard before. All of
    # one length and a multiple of `lanes`, so that no thread waits, unless they would be short.
    count = min(-(-frames // (most * lanes)) * lanes, frames // SHORTEST_FREE)
    return min(-(-frames // max(1, count)), most) or 1


def _check_count(key: str, value: object, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise CodecError(f"{key} must be an integer from 1 to {most}; got {value!r}.")


def _check_pcm(pcm: np.ndarray, bits: int) -> None:
    dtype = getattr(pcm, "dtype", type(pcm).__name__)
    if bits not in container.BITS:
        raise CodecError(f"bits must be 8, 16 or 24; got {bits!r}.")
    if not isinstance(pcm, np.ndarray) or dtype != (np.int32 if bits == 24 else np.int16):
        raise CodecError(
            f"PCM is a numpy array of int16, of 24 bits int32; got {dtype}. Read files with "
            "stereo_sashimi.audio.read_pcm."
        )
    if pcm.ndim != 2 or not 1 <= pcm.shape[1] <= container.MAX_CHANNELS:
        raise CodecError(f"PCM has the shape (frames, channels), 1 to {container.MAX_CHANNELS}; got {pcm.shape}.")
    if bits == 8 and (pcm & 255).any():
        raise CodecError("bits=8, and the recording has more: it would not come back. Give bits=16.")
    if bits == 24 and pcm.size and not -(1 << 23) <= pcm.min() <= pcm.max() < 1 << 23:
        raise CodecError("samples of 24 bits lie between -2**23 and 2**23 - 1; these do not.")
