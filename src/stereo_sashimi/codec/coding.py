"""encode, decode: PCM <-> the bytes of an .ssc file, without loss, by the probabilities of a model.

`batch_coder.py` runs the model and the range coder, `container.py` has the format, `probe.py` what refuses other
machines; `pcm_files.py` reads and writes audio files.
"""

import hashlib
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from stereo_sashimi.audio import quantize
from stereo_sashimi.codec.batch_coder import BatchCoder
from stereo_sashimi.codec.container import (
    CONSTANT,
    MAX_ENVELOPE,
    MAX_FRAMES,
    MAX_SEGMENT_FRAMES,
    MODEL,
    RAW,
    VERSION,
    CodecError,
    Header,
    Segment,
    pack,
    unpack,
)
from stereo_sashimi.codec.probe import probe
from stereo_sashimi.generation.engines.compiled.compiled_engine import CompiledEngine
from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.models.weights import fingerprint
from stereo_sashimi.nn.freeze import freeze
from stereo_sashimi.spec import AudioSpec
from stereo_sashimi.version import __version__

# Segments side by side. A decoder always takes these, if there are so many.
DEFAULT_LANES, MAX_LANES = 32, 256
# Chosen between these, so that short recordings fill the lanes and each segment outweighs its cold start.
SHORTEST, LONGEST = 1 << 14, 1 << 17
# Frames decoded at once, whatever a file asks for: bounds memory, and changes no bit.
_AT_ONCE = 1 << 23

T = TypeVar("T")
Told = Callable[[int], object]


def encode(
    model: LanguageModel,
    pcm: np.ndarray,
    *,
    sample_rate: int | None = None,
    segment_frames: int | None = None,
    lanes: int = DEFAULT_LANES,
    verify: bool = True,
    envelope: bytes = b"",
    on_frames: Told | None = None,
) -> bytes:
    """Code a recording; `decode` with the same model gives the same array.

    - `pcm`: int16 (frames, channels) with the channels of the model, 0 frames or more; for models of 8 bits a
      multiple of 256 (`audio.read_pcm` gives such arrays for 8-bit files).
    - `sample_rate`: of the recording, kept in the file; None for the model's. Another one than the model's is coded
      without loss like any, only worse.
    - `segment_frames`: the model starts anew at each segment, and each can be decoded alone; 1 to 2**20, None chooses.
    - `lanes`: segments coded side by side, 1 to 256. `verify`: decode everything again and compare.
    - `envelope`: bytes to be kept beside the samples. `on_frames`: called with numbers of frames that were coded.

    A segment is stored as one frame where all its frames are equal, and as PCM where the model needs more bits.
    Raises CodecError for a model or an array that cannot be coded.
    """
    check_model(model)
    _check_pcm(pcm, model.spec)
    _check_count("lanes", lanes, MAX_LANES)
    if segment_frames is None:
        segment_frames = min(max(-(-len(pcm) // lanes), SHORTEST), LONGEST)
    _check_count("segment_frames", segment_frames, MAX_SEGMENT_FRAMES)
    if len(envelope) > MAX_ENVELOPE:
        raise CodecError(f"an envelope has at most {MAX_ENVELOPE} bytes; got {len(envelope)}. Keep them elsewhere.")
    rate = model.spec.sample_rate if sample_rate is None else sample_rate
    spec = AudioSpec(rate, model.spec.n_channels, model.spec.bits)
    coder = coder_for(model, min(lanes, max(1, -(-len(pcm) // segment_frames))))
    segments: list[Segment] = []
    cuts = [pcm[start : start + segment_frames] for start in range(0, len(pcm), segment_frames)]
    for group in _groups(cuts, coder.batch_size):
        segments += _encode_group(coder, group, spec, verify, on_frames)
    header = Header(
        *(VERSION, spec, len(pcm), segment_frames, fingerprint(model), probe(coder)),
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
    on_frames: Told | None = None,
) -> np.ndarray:
    """The recording in a file's bytes: int16 (frames, channels).

    - `first`, `frames`: only this part, for which no other segments than its own are decoded; None: to the end.
    - `name`: of the file, for messages. `on_frames`: as in `encode`.

    Raises CodecError before anything is decoded for bytes that are no such file, damaged, or of another model, and
    where this machine computes other probabilities than the encoder's; and if the samples are not those coded.
    """
    header, segments, _ = unpack(data, name)
    last = header.frames if frames is None else first + frames
    if not 0 <= first <= last <= header.frames:
        raise CodecError(f"frames {first} to {last} were asked for, and {name} has {header.frames}.")
    coder = coder_of_file(model, header, name)
    begin, end = first // header.segment_frames, -(-last // header.segment_frames)
    parts = [np.zeros((0, header.spec.n_channels), np.int16)]
    for group in _groups(range(begin, end if last > first else begin), coder.batch_size):
        for i, part in zip(group, _decode_group(coder, header, segments, group, on_frames), strict=True):
            if zlib.crc32(_bytes(part)) != segments[i].crc:
                raise CodecError(f"{name}: segment {i} does not decode to what was coded. Nothing of it can be used.")
            parts.append(part)
    if (begin, end) == (0, header.n_segments) and _digest(parts) != header.pcm:
        raise CodecError(f"{name} does not decode to the samples that were coded. Nothing of it can be used.")
    offset = begin * header.segment_frames
    return np.concatenate(parts)[first - offset : last - offset]


def check_model(model: LanguageModel) -> None:
    """Raise CodecError unless the model's codes are PCM and its engine is one that computes alike everywhere."""
    spec = model.spec
    if spec.quantization != "linear" or spec.normalize != "none":
        raise CodecError(
            f"this model reads {spec.quantization} codes with normalize={spec.normalize}, from which PCM does not come "
            "back. Use a model trained with dataset.quantization=linear dataset.normalize=none."
        )
    CompiledEngine.check(model)


def coder_for(model: LanguageModel, lanes: int) -> BatchCoder:
    """What encoder and decoder share: codes as many segments at once as `lanes`."""
    frozen = freeze(model)
    assert isinstance(frozen, LanguageModel)
    return BatchCoder(CompiledEngine(frozen, lanes))


def coder_of_file(model: LanguageModel, header: Header, name: str) -> BatchCoder:
    """The coder for a file, after a look whether this model and this machine are those of the encoder."""
    check_model(model)
    if fingerprint(model) != header.weights:
        raise CodecError(
            f"{name} was coded with another model (SHA-256 of its weights {header.weights[:12]}..). Give that one: "
            "checkpoint=.."
        )
    if (header.spec.n_channels, header.spec.bits) != (model.spec.n_channels, model.spec.bits):
        raise CodecError(f"{name} has a header that is not valid: its channels or bits are not those of its model.")
    wanted = min(DEFAULT_LANES, max(1, header.n_segments), _AT_ONCE // header.segment_frames)
    coder = coder_for(model, wanted)
    if probe(coder) != header.probe:
        raise CodecError(
            f"{name} cannot be decoded here: this machine, or its versions of stereo-sashimi, torch, numba or "
            f"constriction, computes other probabilities than the one that coded it (stereo-sashimi {header.package}). "
            "Nothing was written."
        )
    return coder


def _encode_group(
    coder: BatchCoder, group: list[np.ndarray], spec: AudioSpec, verify: bool, on_frames: Told | None
) -> list[Segment]:
    segments = {}
    for i, pcm in enumerate(group):
        if (pcm == pcm[0]).all():
            segments[i] = Segment(CONSTANT, _raw(pcm[:1], spec), zlib.crc32(_bytes(pcm)))
    coded = [i for i in range(len(group)) if i not in segments]
    if coded:
        coder.rewind()
        words = coder.encode([quantize.encode(group[i], spec) for i in coded], on_frames)
        for i, word in zip(coded, words, strict=True):
            payload, raw = word.astype("<u4").tobytes(), _raw(group[i], spec)
            mode = MODEL if len(payload) < len(raw) else RAW
            segments[i] = Segment(mode, payload if mode == MODEL else raw, zlib.crc32(_bytes(group[i])))
    done = [segments[i] for i in range(len(group))]
    if verify:
        lengths = [len(pcm) for pcm in group]
        for pcm, back in zip(group, _restore(coder, spec, done, lengths, None), strict=True):
            if not np.array_equal(pcm, back):
                raise CodecError("a segment does not decode to itself on this machine; nothing was written.")
    return done


def _decode_group(
    coder: BatchCoder, header: Header, segments: list[Segment], group: list[int], on_frames: Told | None
) -> list[np.ndarray]:
    lengths = [header.length(i) for i in group]
    return _restore(coder, header.spec, [segments[i] for i in group], lengths, on_frames)


def _restore(
    coder: BatchCoder, spec: AudioSpec, segments: list[Segment], lengths: list[int], on_frames: Told | None
) -> list[np.ndarray]:
    """PCM of segments, as many as there are lanes at the most."""
    out: list[np.ndarray] = []
    modelled = [i for i, segment in enumerate(segments) if segment.mode == MODEL]
    codes = {}
    if modelled:
        coder.rewind()
        words = [np.frombuffer(segments[i].payload, "<u4").astype(np.uint32) for i in modelled]
        try:
            decoded = coder.decode(words, [lengths[i] for i in modelled], on_frames)
        except AssertionError as error:
            # So constriction calls words that no encoder of these probabilities can have written.
            raise CodecError(f"a segment is no code of this model ({error}). Nothing of it can be used.") from error
        codes = dict(zip(modelled, decoded, strict=True))
    for i, (segment, length) in enumerate(zip(segments, lengths, strict=True)):
        if segment.mode == MODEL:
            out.append(quantize.decode(codes[i], spec))
        else:
            stored = _of_raw(segment.payload, spec)
            out.append(stored if segment.mode == RAW else np.repeat(stored, length, axis=0))
    return out


def _groups(items: Sequence[T], size: int) -> Iterator[list[T]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])


def _raw(pcm: np.ndarray, spec: AudioSpec) -> bytes:
    """PCM in as many bytes as it has."""
    return _bytes(pcm) if spec.bits == 16 else (pcm >> 8).astype(np.int8).tobytes()


def _of_raw(data: bytes, spec: AudioSpec) -> np.ndarray:
    pcm = np.frombuffer(data, "<i2").astype(np.int16) if spec.bits == 16 else np.frombuffer(data, np.int8)
    wide = pcm if spec.bits == 16 else pcm.astype(np.int16) << 8
    return wide.reshape(-1, spec.n_channels)


def _bytes(pcm: np.ndarray) -> bytes:
    return pcm.astype("<i2").tobytes()


def _digest(parts: list[np.ndarray]) -> str:
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
    if len(pcm) > MAX_FRAMES:
        raise CodecError(f"a recording has at most {MAX_FRAMES} frames; got {len(pcm)}. Cut it into parts.")
    if spec.bits == 8 and (pcm & 255).any():
        raise CodecError(
            "this model codes 8 bits, and the recording has more: it would not come back. Use a 16-bit one."
        )
