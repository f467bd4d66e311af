"""encode, decode: PCM <-> the bytes of an .ssc file, without loss, by the probabilities of a model.

`batch_coder.py` runs the model and the range coder, `container.py` has the format, `probe.py` what refuses other
machines; `pcm_files.py` reads and writes audio files.
"""

import hashlib
import zlib
from collections.abc import Iterator, Sequence

import numpy as np

from stereo_sashimi.audio import quantize
from stereo_sashimi.codec import container
from stereo_sashimi.codec.batch_coder import BatchCoder, Progress
from stereo_sashimi.codec.container import CONSTANT, MODEL, RAW, CodecError, FileHeader, Segment, pack, unpack
from stereo_sashimi.codec.probe import probe
from stereo_sashimi.generation.engines.compiled.compiled_engine import CompiledEngine
from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.models.weights import fingerprint
from stereo_sashimi.nn.freeze import freeze
from stereo_sashimi.spec import AudioSpec
from stereo_sashimi.version import __version__

# Segments coded at once. A decoder always takes these, if there are so many.
DEFAULT_BATCH, MAX_BATCH = 32, 256
# Chosen between these, so that short recordings fill a batch and each segment outweighs its cold start.
SHORTEST, LONGEST = 1 << 14, 1 << 17
# Frames decoded at once, whatever a file asks for: bounds memory, and changes no bit.
_AT_ONCE = 1 << 23


def encode(
    model: LanguageModel,
    pcm: np.ndarray,
    *,
    sample_rate: int | None = None,
    segment_frames: int | None = None,
    lanes: int = DEFAULT_BATCH,
    verify: bool = True,
    envelope: bytes = b"",
    on_frames: Progress = None,
) -> bytes:
    """Code a recording; `decode` with the same model gives the same array.

    A segment is stored as one frame where all its frames are equal, and as PCM where the model needs more bits.

    Args:
        model: Its codes must be PCM, and its channels and bits those of the recording.
        pcm: int16 (frames, channels), 0 frames or more; for models of 8 bits a multiple of 256 (`audio.read_pcm` gives
            such arrays for 8-bit files).
        sample_rate: Of the recording, kept in the file; None for the model's. Another one is coded without loss like
            any, only worse.
        segment_frames: The model starts anew at each segment, and each can be decoded alone; 1 to 2**20. None: by the
            length of the recording, with adaptive experts the most.
        lanes: Segments coded at once, 1 to 256.
        verify: Decode everything again and compare.
        envelope: Bytes to be kept beside the samples.
        on_frames: Called with numbers of frames that were coded.

    Raises:
        CodecError: The model or the array cannot be coded.
    """
    check_model(model)
    _check_pcm(pcm, model.spec)
    _check_count("lanes", lanes, MAX_BATCH)
    if segment_frames is None:
        # Experts go on learning for as long as they are let, and find more and more that they have heard before.
        by_length = min(max(-(-len(pcm) // lanes), SHORTEST), LONGEST)
        segment_frames = by_length if model.experts is None else container.MAX_SEGMENT_FRAMES
    _check_count("segment_frames", segment_frames, container.MAX_SEGMENT_FRAMES)
    if len(envelope) > container.MAX_ENVELOPE:
        raise CodecError(
            f"an envelope has at most {container.MAX_ENVELOPE} bytes; got {len(envelope)}. Keep them elsewhere."
        )
    rate = model.spec.sample_rate if sample_rate is None else sample_rate
    spec = AudioSpec(rate, model.spec.n_channels, model.spec.bits)
    cuts = [pcm[start : start + segment_frames] for start in range(0, len(pcm), segment_frames)]
    coder = coder_for(model, min(lanes, max(1, len(cuts))))
    segments: list[Segment] = []
    for start in range(0, len(cuts), coder.batch_size):
        batch = cuts[start : start + coder.batch_size]
        coded = _encode_batch(coder, batch, spec, on_frames)
        if verify:
            back = _decode_batch(coder, coded, [len(part) for part in batch], spec)
            if not all(map(np.array_equal, batch, back)):
                raise CodecError("a segment does not decode to itself on this machine; nothing was written.")
        segments += coded
    header = FileHeader(
        *(container.VERSION, spec, len(pcm), segment_frames, fingerprint(model), probe(coder)),
        *(_digest(cuts), len(envelope), __version__),
    )
    return pack(header, segments, envelope)


def decode(
    model: LanguageModel,
    data: bytes,
    *,
    first: int = 0,
    frames: int | None = None,
    name: str = "the data",
    on_frames: Progress = None,
) -> np.ndarray:
    """The recording in a file's bytes, or a part of it: int16 (frames, channels).

    Args:
        model: The one that coded it.
        data: The bytes.
        first: First frame of the part that is wanted, for which no other segments than its own are decoded.
        frames: Length of that part; None to the end.
        name: Of the file, for messages.
        on_frames: As in `encode`.

    Raises:
        CodecError: Before anything is decoded, for bytes that are no such file, damaged, or of another model, and where
            this machine computes other probabilities than the encoder's; behind it if the samples are not those coded.
            More frames than fit into memory, which a small file may claim.
    """
    blocks = decode_blocks(model, data, first=first, frames=frames, name=name, on_frames=on_frames)
    header, at = container.read_header(data, name), 0
    count = header.frames - first if frames is None else frames
    try:
        pcm = np.empty((count, header.spec.n_channels), np.int16)
    except MemoryError:
        raise CodecError(
            f"{count} frames of {name} do not fit into memory. Ask for a part (first, frames), or use "
            "codec.decode_blocks."
        ) from None
    for block in blocks:
        pcm[at : at + len(block)] = block
        at += len(block)
    return pcm


def decode_blocks(
    model: LanguageModel,
    data: bytes,
    *,
    first: int = 0,
    frames: int | None = None,
    name: str = "the data",
    on_frames: Progress = None,
) -> Iterator[np.ndarray]:
    """What `decode` gives, in blocks of a segment at most: in bounded memory, whatever length a file claims.

    Whether the whole is what was coded is known, and CodecError raised, behind the last block only.
    """
    header, segments, _ = unpack(data, name)
    last = header.frames if frames is None else first + frames
    if not 0 <= first <= last <= header.frames:
        raise CodecError(f"frames {first} to {last} were asked for, and {name} has {header.frames}.")
    coder = coder_of_file(model, header, name)
    return _blocks(coder, header, segments, range(first, last), name, on_frames)


def _blocks(
    coder: BatchCoder, header: FileHeader, segments: list[Segment], wanted: range, name: str, on_frames: Progress
) -> Iterator[np.ndarray]:
    size, digest = header.segment_frames, hashlib.sha256()
    every = range(wanted.start // size, -(-wanted.stop // size) if wanted else wanted.start // size)
    for start in every[:: coder.batch_size]:
        numbers = range(start, min(start + coder.batch_size, every.stop))
        lengths = [header.length(i) for i in numbers]
        batch = _decode_batch(coder, segments[start : numbers.stop], lengths, header.spec, on_frames)
        for i in numbers:
            # Nothing of this batch is kept while the next one is decoded.
            part = batch.pop(0)
            pcm = _bytes(part)
            if zlib.crc32(pcm) != segments[i].crc:
                raise CodecError(f"{name}: segment {i} does not decode to what was coded. Nothing of it can be used.")
            digest.update(pcm)
            yield part[max(0, wanted.start - i * size) : wanted.stop - i * size]
    if len(every) == header.n_segments and digest.hexdigest() != header.pcm:
        raise CodecError(f"{name} does not decode to the samples that were coded. Nothing of it can be used.")


def check_model(model: LanguageModel) -> None:
    """Raise CodecError unless the model's codes are PCM and its engine is one that computes alike everywhere."""
    spec = model.spec
    if spec.quantization != "linear" or spec.normalize != "none":
        raise CodecError(
            f"this model reads {spec.quantization} codes with normalize={spec.normalize}, from which PCM does not come "
            "back. Use a model trained with dataset.quantization=linear dataset.normalize=none."
        )
    CompiledEngine.check(model)


def coder_for(model: LanguageModel, batch_size: int) -> BatchCoder:
    """What encoder and decoder share."""
    frozen = freeze(model)
    assert isinstance(frozen, LanguageModel)
    return BatchCoder(CompiledEngine(frozen, batch_size))


def coder_of_file(model: LanguageModel, header: FileHeader, name: str) -> BatchCoder:
    """The coder for a file, after a look whether this model and this machine are those of the encoder."""
    check_model(model)
    if fingerprint(model) != header.weights:
        raise CodecError(
            f"{name} was coded with another model (SHA-256 of its weights {header.weights[:12]}..). Give that one: "
            "checkpoint=.."
        )
    if (header.spec.n_channels, header.spec.bits) != (model.spec.n_channels, model.spec.bits):
        raise CodecError(f"{name} has a header that is not valid: its channels or bits are not those of its model.")
    coder = coder_for(model, min(DEFAULT_BATCH, max(1, header.n_segments), _AT_ONCE // header.segment_frames))
    if probe(coder) != header.probe:
        raise CodecError(
            f"{name} cannot be decoded here: this machine, or its versions of stereo-sashimi, torch, numba or "
            f"constriction, computes other probabilities than the one that coded it (stereo-sashimi {header.package}). "
            "Nothing was written."
        )
    return coder


def _encode_batch(
    coder: BatchCoder, batch: Sequence[np.ndarray], spec: AudioSpec, on_frames: Progress
) -> list[Segment]:
    """Segments of PCM, each stored in the shortest of the three ways."""
    constant = [bool((pcm == pcm[0]).all()) for pcm in batch]
    codes = [quantize.encode(pcm, spec) for pcm, same in zip(batch, constant, strict=True) if not same]
    coder.rewind()
    words = iter(coder.encode(codes, on_frames) if codes else ())
    segments = []
    for pcm, same in zip(batch, constant, strict=True):
        mode, payload = (CONSTANT, _raw(pcm[:1], spec)) if same else (MODEL, next(words).astype("<u4").tobytes())
        if mode == MODEL and len(payload) >= pcm.size * spec.bits // 8:
            mode, payload = RAW, _raw(pcm, spec)
        segments.append(Segment(mode, payload, zlib.crc32(_bytes(pcm))))
    return segments


def _decode_batch(
    coder: BatchCoder, batch: Sequence[Segment], lengths: Sequence[int], spec: AudioSpec, on_frames: Progress = None
) -> list[np.ndarray]:
    """PCM of segments of these lengths, at most as many as `coder` takes at once."""
    coded = [(segment, n) for segment, n in zip(batch, lengths, strict=True) if segment.mode == MODEL]
    words = [np.frombuffer(segment.payload, "<u4").astype(np.uint32) for segment, _ in coded]
    coder.rewind()
    try:
        codes = iter(coder.decode(words, [n for _, n in coded], on_frames) if coded else ())
    except AssertionError as error:
        # So constriction calls words that no encoder of these probabilities can have written.
        raise CodecError(f"a segment is no code of this model ({error}). Nothing of it can be used.") from error
    if on_frames is not None:
        on_frames(sum(lengths) - sum(n for _, n in coded))
    return [
        quantize.decode(next(codes), spec) if mode == MODEL
        # A constant segment holds one frame, which every frame equals.
        else np.repeat(_of_raw(payload, spec), n if mode == CONSTANT else 1, axis=0)
        for (mode, payload, _), n in zip(batch, lengths, strict=True)
    ]  # fmt: skip


def _raw(pcm: np.ndarray, spec: AudioSpec) -> bytes:
    """PCM in as many bytes as it has."""
    return _bytes(pcm) if spec.bits == 16 else (pcm >> 8).astype(np.int8).tobytes()


def _of_raw(data: bytes, spec: AudioSpec) -> np.ndarray:
    pcm = np.frombuffer(data, "<i2" if spec.bits == 16 else np.int8).astype(np.int16)
    return (pcm << 16 - spec.bits).reshape(-1, spec.n_channels)


def _bytes(pcm: np.ndarray) -> bytes:
    return pcm.astype("<i2").tobytes()


def _digest(parts: Sequence[np.ndarray]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(_bytes(part))
    return digest.hexdigest()


def _check_count(key: str, value: object, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise CodecError(f"{key} must be an integer from 1 to {most}; got {value!r}.")


def _check_pcm(pcm: np.ndarray, spec: AudioSpec) -> None:
    dtype = getattr(pcm, "dtype", type(pcm).__name__)
    if not isinstance(pcm, np.ndarray) or dtype != np.int16:
        raise CodecError(f"PCM is a numpy array of int16; got {dtype}. Read files with stereo_sashimi.audio.read_pcm.")
    if pcm.ndim != 2 or pcm.shape[1] != spec.n_channels:
        names = {1: "mono", 2: "stereo"}
        raise CodecError(
            f"this model codes {names[spec.n_channels]}, int16 (frames, {spec.n_channels}); got {pcm.shape}. Use a "
            "model with the channels of the recording."
        )
    if len(pcm) > container.MAX_FRAMES:
        raise CodecError(f"a recording has at most {container.MAX_FRAMES} frames; got {len(pcm)}. Cut it into parts.")
    if spec.bits == 8 and (pcm & 255).any():
        raise CodecError(
            "this model codes 8 bits, and the recording has more: it would not come back. Use a 16-bit one."
        )
