"""Sampling recordings: `blocks` draws them block by block, `draw` a batch of them, `generate` a single one.

A `Stream` reads the prompt in bounded segments and then draws frames, so memory does not depend on the length.
"""

import math
import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from stereo_sashimi.audio.files import check_pcm
from stereo_sashimi.audio.quantize import decode, encode
from stereo_sashimi.distributions.sampler import Sampler
from stereo_sashimi.generation import stream as stream_module
from stereo_sashimi.generation.results import Block, SamplingTotals
from stereo_sashimi.generation.stream import Stream
from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.spec import AudioSpec

# Between two blocks the caller writes a file, moves a progress bar or sees Ctrl-C. Blocks that take less than
# FAST_BLOCK_S seconds get longer, up to 23 ms of sound at 44.1 kHz; above SLOW_BLOCK_S they get shorter again.
MIN_BLOCK_FRAMES, MAX_BLOCK_FRAMES = 64, 1024
FAST_BLOCK_S, SLOW_BLOCK_S = 0.01, 0.05


def generate(
    model: LanguageModel,
    seconds: float,
    *,
    prompt: np.ndarray | None = None,
    seed: int = 0,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    mixture_temperature: float | None = None,
    scale_temperature: float | None = None,
    engine: str = "auto",
) -> np.ndarray:
    """Draw a recording; `draw` makes several in one batch.

    Args:
        seconds: Length of what is drawn, after the prompt.
        prompt: PCM in the model's format; None starts a new track. It comes back as the model saw it, which differs
            from the original at 8 bits or with a `normalize` other than none.
        seed: At least 0; the same seed gives the same recording.
        temperature, top_k, top_p, mixture_temperature, scale_temperature: See `Sampler`.
        engine: See `Stream`.

    Returns:
        int16 (frames, channels), the prompt in front.

    Raises:
        ValueError: One of the arguments is out of range.
    """
    sampler = Sampler(temperature, top_k, top_p, mixture_temperature, scale_temperature)
    return draw(model, frames_in(seconds, model.spec), [seed], prompt=prompt, sampler=sampler, engine=engine)[0][0]


def draw(
    model: LanguageModel,
    n_frames: int,
    seeds: Sequence[int],
    *,
    prompt: np.ndarray | None = None,
    sampler: Sampler | None = None,
    engine: str = "auto",
) -> tuple[np.ndarray, SamplingTotals]:
    """Draw one sample of `n_frames` new frames for each seed, as one batch; all continue the same prompt.

    Args: see `blocks`.

    Returns:
        int16 PCM (samples, frames, channels) with the prompt in front, and the totals: scores and speed.
    """
    totals, pcm = SamplingTotals(model.spec), []
    for block in blocks(model, n_frames, seeds, prompt, sampler, engine, MIN_BLOCK_FRAMES):
        totals.add(block)
        pcm.append(block.pcm)
    return np.concatenate(pcm, axis=1), totals


def blocks(
    model: LanguageModel,
    n_frames: int | None,
    seeds: Sequence[int],
    prompt: np.ndarray | None = None,
    sampler: Sampler | None = None,
    engine: str = "auto",
    block_frames: int | None = None,
) -> Iterator[Block]:
    """Draw block by block at constant memory: first the prompt, then what is drawn.

    The model is read and the arguments are checked here, before the first block is asked for.

    Args:
        n_frames: New frames of each sample; None draws without end.
        seeds: One a sample.
        prompt: PCM (frames, channels) in the model's format, which all samples continue.
        sampler: None draws from the model itself.
        engine: See `Stream`.
        block_frames: Frames of a drawn block; None chooses 64 to 1024 by the speed of the engine.
    """
    sampler = sampler or Sampler()
    model.head.check_sampling(sampler)
    if prompt is not None:
        check_pcm(prompt, model.spec)
    if n_frames is not None and n_frames < 1:
        raise ValueError(f"n_frames must be at least 1, or None; got {n_frames}.")
    return _blocks(Stream(model, 1, engine), n_frames, seeds, prompt, sampler, block_frames)


def _blocks(
    stream: Stream,
    n_frames: int | None,
    seeds: Sequence[int],
    prompt: np.ndarray | None,
    sampler: Sampler,
    block_frames: int | None,
) -> Iterator[Block]:
    n_samples, spec = len(seeds), stream.spec
    for codes in () if prompt is None else _segments(prompt, spec):
        log_prob = stream.prefill(torch.from_numpy(codes)[None].to(stream.device))
        nats, pcm = -log_prob[0].cpu().double().sum(0).numpy(), decode(codes, spec)
        yield Block(np.broadcast_to(pcm, (n_samples, *pcm.shape)), np.tile(nats, (n_samples, 1)), False, 0.0)
    # A single sample keeps the engine that read the prompt.
    stream = stream if n_samples == 1 else stream.spread(n_samples)
    stream.seed(seeds)
    size, left = block_frames or MIN_BLOCK_FRAMES, math.inf if n_frames is None else n_frames
    while left > 0:
        count = int(min(size, left))
        since = time.perf_counter()
        codes_drawn, log_prob = stream.draw(count, sampler)
        codes, nats = codes_drawn.cpu().numpy(), -log_prob.cpu().double().sum(1).numpy()
        # Measured after the copies, which wait for the GPU.
        seconds = time.perf_counter() - since
        pcm = decode(codes.reshape(-1, spec.n_channels), spec).reshape(codes.shape)
        yield Block(pcm, nats, True, seconds)
        left -= count
        if block_frames is None:
            size = min(2 * size, MAX_BLOCK_FRAMES) if seconds < FAST_BLOCK_S else size
            size = max(size // 2, MIN_BLOCK_FRAMES) if seconds > SLOW_BLOCK_S else size


def _segments(pcm: np.ndarray, spec: AudioSpec) -> Iterator[np.ndarray]:
    """The codes of a prompt (frames, channels), in segments that `Stream.prefill` takes in one pass."""
    length = stream_module.PREFILL_FRAMES
    # Any other normalisation looks at the whole recording.
    codes = None if spec.normalize == "none" else encode(pcm, spec)
    for start in range(0, len(pcm), length):
        part = slice(start, start + length)
        yield encode(pcm[part], spec) if codes is None else codes[part]


def frames_in(seconds: float, spec: AudioSpec, name: str = "seconds") -> int:
    """Frames in so many seconds. Raises ValueError, which calls the value `name`, if that is not at least one."""
    frames = round(seconds * spec.sample_rate) if math.isfinite(seconds) else 0
    if frames < 1:
        raise ValueError(f"{name} must give at least one frame at {spec.sample_rate} Hz; got {seconds}.")
    return frames
