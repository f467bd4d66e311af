"""Audio in blocks: recordings cut into segments of codes that a `Stream` hears, and the audio that it draws."""

import math
import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from stereo_sashimi.audio.files import check_pcm
from stereo_sashimi.audio.quantize import decode, encode
from stereo_sashimi.generation import stream as stream_module
from stereo_sashimi.generation.philox import Sampler
from stereo_sashimi.generation.results import Block
from stereo_sashimi.generation.stream import Stream
from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.spec import AudioSpec

# Drawn between two looks at what else there is to do: a file, a progress bar, Ctrl-C. Where they take less than
# `LITTLE` seconds there will be more of them, up to 23 ms of sound at 44.1 kHz; above `MUCH` fewer again.
FRAMES_AT_ONCE, MOST_AT_ONCE = 64, 1024
LITTLE, MUCH = 0.01, 0.05


def blocks(
    model: LanguageModel,
    n_frames: int | None,
    seeds: Sequence[int],
    *,
    prompt: np.ndarray | None = None,
    sampler: Sampler | None = None,
    engine: str = "auto",
    frames_at_once: int | None = None,
) -> Iterator[Block]:
    """`draw`, a block at a time and at constant memory: first the prompt, then what is drawn.

    - `n_frames`: None goes on without end. `frames_at_once`: of a drawn block, the last maybe fewer; None for
      something between 64 and 1024, by the speed of the engine. The other arguments are those of `draw`.

    The model is read and the arguments are checked here, before the first block is asked for.
    """
    model.head.check_sampling(sampler or Sampler())
    if prompt is not None:
        check_pcm(prompt, model.spec)
    if n_frames is not None and n_frames < 1:
        raise ValueError(f"n_frames must be at least 1, or None; got {n_frames}.")
    return _blocks(Stream(model, 1, engine), n_frames, seeds, prompt, sampler, frames_at_once)


def _blocks(
    stream: Stream,
    n_frames: int | None,
    seeds: Sequence[int],
    prompt: np.ndarray | None,
    sampler: Sampler | None,
    frames_at_once: int | None,
) -> Iterator[Block]:
    n_samples, spec = len(seeds), stream.spec
    for codes in () if prompt is None else segments(prompt, spec):
        nats, pcm = feed(stream, codes), decode(codes, spec)
        yield Block(np.broadcast_to(pcm, (n_samples, *pcm.shape)), np.tile(nats, (n_samples, 1)), False, 0.0)
    # One engine more would be made for nothing.
    stream = stream if n_samples == 1 else stream.spread(n_samples)
    size, todo = frames_at_once or FRAMES_AT_ONCE, math.inf if n_frames is None else n_frames
    first: Sequence[int] | None = seeds
    while todo > 0:
        count = int(min(size, todo))
        since = time.perf_counter()
        part = next(stream.generate(count, sampler, first, count))
        codes, nats = part.codes.cpu().numpy(), -part.log_prob.cpu().double().sum(1).numpy()
        # Behind the copies: a GPU answers at once and works on.
        seconds = time.perf_counter() - since
        yield Block(np.stack([decode(row, spec) for row in codes]), nats, True, seconds)
        todo, first = todo - count, None
        if frames_at_once is None:
            size = min(2 * size, MOST_AT_ONCE) if seconds < LITTLE else size
            size = max(size // 2, FRAMES_AT_ONCE) if seconds > MUCH else size


def segments(pcm: np.ndarray, spec: AudioSpec) -> Iterator[np.ndarray]:
    """The codes of a recording in segments (frames, channels)."""
    length = stream_module.PREFILL_FRAMES
    # Any other normalisation looks at the whole recording.
    codes = None if spec.normalize == "none" else encode(pcm, spec)
    for start in range(0, len(pcm), length):
        part = slice(start, start + length)
        yield encode(pcm[part], spec) if codes is None else codes[part]


def feed(stream: Stream, codes: np.ndarray) -> np.ndarray:
    """The stream hears codes (frames, channels); returns their nats (channels,), float64."""
    log_prob = stream.prefill(torch.from_numpy(codes)[None].to(stream.device))
    nats: np.ndarray = -log_prob[0].cpu().double().sum(0).numpy()
    return nats
