"""Whole recordings: the bits that a model needs for one (`score`), and one that it makes (`generate`).

Both run a `Stream` in bounded segments, so a long file takes the time of its length but no more memory than its PCM.
`drawing.py` hands out what is made while it is made.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from stereo_sashimi.audio.files import check_pcm
from stereo_sashimi.generation.blocks import FRAMES_AT_ONCE, blocks, feed, segments
from stereo_sashimi.generation.philox import Sampler
from stereo_sashimi.generation.results import Block, Tally
from stereo_sashimi.generation.results import TrackScore as TrackScore
from stereo_sashimi.generation.stream import Stream
from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.spec import AudioSpec


class Drawn(NamedTuple):
    """What `draw` made, one row or entry a sample.

    - `pcm`: int16 (samples, frames, channels), the prompt in front.
    - `scores`: of what was drawn, under the model itself. `prompt_scores`: of the prompt; None without one.
    - `frames_per_s`: of each sample, while drawing.
    """

    pcm: np.ndarray
    scores: list[TrackScore]
    prompt_scores: list[TrackScore] | None
    frames_per_s: float


def score(model: LanguageModel, pcm: np.ndarray) -> TrackScore:
    """How many bits the model needs for a recording, from the start of a track.

    - `pcm`: int16 (frames, channels) in the model's format, as `read` gives it.

    The result is that of `model.log_prob` on the codes of `pcm`, summed. Raises ValueError for another array.
    """
    check_pcm(pcm, model.spec)
    # No frame is drawn, so an engine's weights would be packed for nothing.
    stream = Stream(model, 1, "reference")
    total = np.sum([feed(stream, codes) for codes in segments(pcm, model.spec)], axis=0)
    return TrackScore(tuple(total.tolist()), len(pcm), model.spec)


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
    """Draw a recording: int16 (frames, channels), the prompt and `seconds` of continuation.

    - `prompt`: PCM in the model's format; None starts a new track. It comes back as the model saw it: at 8 bits, or
      with a `normalize` other than none, not as it was.
    - `seed`: at least 0; the same one gives the same recording. `draw` makes several in one batch.
    - `temperature`, `top_k`, `top_p`, `mixture_temperature`, `scale_temperature`: see `Sampler`.
    - `engine`: see `Stream`.

    Raises ValueError for any of these out of range.
    """
    sampler = Sampler(temperature, top_k, top_p, mixture_temperature, scale_temperature)
    return draw(model, frames_in(seconds, model.spec), [seed], prompt=prompt, sampler=sampler, engine=engine).pcm[0]


def draw(
    model: LanguageModel,
    n_frames: int,
    seeds: Sequence[int],
    *,
    prompt: np.ndarray | None = None,
    sampler: Sampler | None = None,
    engine: str = "auto",
    on_frames: Callable[[int], object] | None = None,
) -> Drawn:
    """Draw one sample of `n_frames` new frames for each seed, as one batch; all continue the same prompt.

    - `sampler`: None draws from the model itself. `engine`: see `Stream`.
    - `on_frames`: called with a number of frames that were drawn, for progress bars.
    """

    def told(parts: Iterable[Block]) -> Iterator[Block]:
        for block in parts:
            yield block
            if block.drawn and on_frames is not None:
                on_frames(block.pcm.shape[1])

    parts = blocks(model, n_frames, seeds, prompt=prompt, sampler=sampler, engine=engine, frames_at_once=FRAMES_AT_ONCE)
    return collect(told(parts), model.spec)


def collect(parts: Iterable[Block], spec: AudioSpec) -> Drawn:
    """Put the blocks of a draw together. `spec`: of the model that drew them."""
    tally, pcm = Tally(spec), []
    for block in parts:
        tally.add(block)
        pcm.append(block.pcm)
    return Drawn(np.concatenate(pcm, axis=1), tally.scores(), tally.prompt_scores(), tally.frames_per_s)


def frames_in(seconds: float, spec: AudioSpec, name: str = "seconds") -> int:
    """Frames in so many seconds, at least one; else ValueError, which calls the value `name`."""
    frames = round(seconds * spec.sample_rate) if math.isfinite(seconds) else 0
    if frames < 1:
        raise ValueError(f"{name} must give at least one frame at {spec.sample_rate} Hz; got {seconds}.")
    return frames
