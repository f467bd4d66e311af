"""Whole recordings: the bits that a model needs for one (`score`), and one that it makes (`generate`).

Both run a `Stream` in bounded segments, so a long file takes the time of its length but no more memory than its PCM.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stereo_sashimi.audio.quantize import decode, encode
from stereo_sashimi.generation import stream as stream_module
from stereo_sashimi.generation.files import check_pcm
from stereo_sashimi.generation.sample import Sampler
from stereo_sashimi.generation.stream import Stream
from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.spec import AudioSpec

# Drawn between two looks at what else there is to do: a progress bar, Ctrl-C.
FRAMES_AT_ONCE = 64


@dataclass(frozen=True)
class TrackScore:
    """The information in a recording under a model: totals, and what they are for one sample.

    - `channel_nats`: -log p of all codes of each channel, in nats. `frames`: at least 1. `spec`: the model's format.

    A sample is one code of one channel. `str` gives one line for people.
    """

    channel_nats: tuple[float, ...]
    frames: int
    spec: AudioSpec

    @property
    def nats(self) -> float:
        """-log p of the whole recording."""
        return math.fsum(self.channel_nats)

    @property
    def samples(self) -> int:
        """Number of codes, frames times channels."""
        return self.frames * len(self.channel_nats)

    @property
    def bits_per_sample(self) -> float:
        """Bits per sample, pooled over channels."""
        return self.nats / math.log(2) / self.samples

    @property
    def channel_bits_per_sample(self) -> dict[str, float]:
        """Bits per sample of each channel, by name."""
        names = self.spec.channel_names
        return {n: c / math.log(2) / self.frames for n, c in zip(names, self.channel_nats, strict=True)}

    @property
    def bpb(self) -> float:
        """Bits per byte of PCM: 8 / bits of `bits_per_sample`."""
        return 8 / self.spec.bits * self.bits_per_sample

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {bits:.3f}" for name, bits in self.channel_bits_per_sample.items())
        each = f" ({parts})" if len(self.channel_nats) > 1 else ""
        return f"{self.bits_per_sample:.3f} bits/sample{each}, {self.bpb:.3f} bits/byte, {self.frames:,} frames"


class Drawn(NamedTuple):
    """What `draw` made, one row or entry a sample.

    - `pcm`: int16 (samples, frames, channels), the prompt in front.
    - `scores`: of what was drawn, under the model itself. `prompt_scores`: of the prompt; None without one.
    """

    pcm: np.ndarray
    scores: list[TrackScore]
    prompt_scores: list[TrackScore] | None


def score(model: LanguageModel, pcm: np.ndarray) -> TrackScore:
    """How many bits the model needs for a recording, from the start of a track.

    - `pcm`: int16 (frames, channels) in the model's format, as `read` gives it.

    The result is that of `model.log_prob` on the codes of `pcm`, summed. Raises ValueError for another array.
    """
    check_pcm(pcm, model.spec)
    total = _feed(Stream(model, 1), _segments(pcm, model.spec))
    return _scores(total, len(pcm), model.spec)[0]


def generate(
    model: LanguageModel,
    seconds: float,
    *,
    prompt: np.ndarray | None = None,
    seed: int = 0,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    engine: str = "auto",
) -> np.ndarray:
    """Draw a recording: int16 (frames, channels), the prompt and `seconds` of continuation.

    - `prompt`: PCM in the model's format; None starts a new track. It comes back as the model saw it: at 8 bits, or
      with a `normalize` other than none, not as it was.
    - `seed`: at least 0; the same one gives the same recording. `draw` makes several in one batch.
    - `temperature`, `top_k`, `top_p`: see `Sampler`. `engine`: see `Stream`.

    Raises ValueError for any of these out of range.
    """
    sampler = Sampler(temperature, top_k, top_p)
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
    spec, sampler = model.spec, sampler or Sampler()
    model.head.check_sampling(sampler)
    if prompt is not None:
        check_pcm(prompt, spec)
    stream = Stream(model, 1, engine)
    heard: list[np.ndarray] = []
    prompt_scores = None
    if prompt is not None:
        total = torch.zeros(1, spec.n_channels, dtype=torch.float64)
        for codes in _segments(prompt, spec):
            total += _feed(stream, [codes])
            heard.append(decode(codes, spec))
        prompt_scores = _scores(total, len(prompt), spec) * len(seeds)
    stream = stream.spread(len(seeds))
    drawn = torch.empty(len(seeds), n_frames, spec.n_channels, dtype=torch.int64)
    total = torch.zeros(len(seeds), spec.n_channels, dtype=torch.float64)
    done = 0
    for frames in stream.generate(n_frames, sampler, seeds, FRAMES_AT_ONCE):
        count = frames.codes.shape[1]
        drawn[:, done : done + count] = frames.codes
        total -= frames.log_prob.cpu().double().sum(1)
        done += count
        if on_frames is not None:
            on_frames(count)
    rows = [np.concatenate([*heard, decode(row, spec)]) for row in drawn.numpy()]
    return Drawn(np.stack(rows), _scores(total, n_frames, spec), prompt_scores)


def frames_in(seconds: float, spec: AudioSpec, name: str = "seconds") -> int:
    """Frames in so many seconds, at least one; else ValueError, which calls the value `name`."""
    frames = round(seconds * spec.sample_rate) if math.isfinite(seconds) else 0
    if frames < 1:
        raise ValueError(f"{name} must give at least one frame at {spec.sample_rate} Hz; got {seconds}.")
    return frames


def _segments(pcm: np.ndarray, spec: AudioSpec) -> Iterator[np.ndarray]:
    """The codes of a recording in segments (frames, channels)."""
    length = stream_module.PREFILL_FRAMES
    # Any other normalisation looks at the whole recording.
    codes = None if spec.normalize == "none" else encode(pcm, spec)
    for start in range(0, len(pcm), length):
        part = slice(start, start + length)
        yield encode(pcm[part], spec) if codes is None else codes[part]


def _feed(stream: Stream, segments: Iterable[np.ndarray]) -> Tensor:
    """Every stream hears the same codes; returns their nats (streams, channels), float64."""
    total = torch.zeros(stream.batch_size, stream.spec.n_channels, dtype=torch.float64)
    for codes in segments:
        given = torch.from_numpy(codes).to(stream.device).expand(stream.batch_size, -1, -1)
        # float32 would lose bits over millions of frames.
        total -= stream.prefill(given).cpu().double().sum(1)
    return total


def _scores(nats: Tensor, frames: int, spec: AudioSpec) -> list[TrackScore]:
    return [TrackScore(tuple(row), frames, spec) for row in nats.tolist()]
