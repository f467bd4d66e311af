"""Totals over the tracks of an evaluation: bits over samples, not means of ratios, and how far they can be trusted."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stereo_sashimi.spec import LN2, AudioSpec, bits_per_byte

RESAMPLES = 10_000
# Numbers that one block of resamples draws, 32 MiB of them.
_BLOCK = 1 << 22
# On each side of an interval. 0.025 would be another float.
_TAIL = (1 - 0.95) / 2


@dataclass(frozen=True)
class TrackResult:
    """What one recording costs.

    Attributes:
        sha256: Hash of the PCM that was scored.
        contexts: By name, `carried` or a number of frames, {"channel_nats": [..]}; the main one first.
        independent: The same of the model with independent channels, in the main context, or None.
        bits_each_second: (seconds, channels), in the main context.
        lossless: Bits of the whole coded file, by the coder's name.
    """

    file: str
    sha256: str
    frames: int
    sample_rate: int
    n_channels: int
    contexts: dict[str, dict[str, list[float]]]
    independent: dict[str, list[float]] | None
    bits_each_second: list[list[float]]
    lossless: dict[str, int]

    @property
    def samples(self) -> int:
        """Frames times channels."""
        return self.frames * self.n_channels

    def bits(self, context: str) -> float:
        """Bits of all channels."""
        return _bits(self.contexts[context])


def channel_labels(spec: AudioSpec, coupling: str) -> tuple[str, ...]:
    """What the bits of each channel are: with `coupling` autoregressive the right one's are given the left one."""
    names = spec.channel_names
    if coupling == "independent":
        return names
    return tuple(f"{name} | {', '.join(names[:c])}" if c else name for c, name in enumerate(names))


def pooled(tracks: Sequence[TrackResult], spec: AudioSpec, labels: Sequence[str]) -> dict[str, Any]:
    """Totals over at least one track, which must have the same contexts; as plain fields for JSON.

    The sums are exact, so they depend neither on the order of the tracks nor on who made them. A coder that lacks a
    track is left out. `labels`: one a channel.
    """
    tracks = sorted(tracks, key=lambda track: track.file)
    samples = [track.samples for track in tracks]
    frames = sum(track.frames for track in tracks)
    contexts = {}
    for name in tracks[0].contexts:
        ratio = _ratio([track.bits(name) for track in tracks], samples)
        by_channel = zip(*(track.contexts[name]["channel_nats"] for track in tracks), strict=True)
        contexts[name] = {
            "bits_per_sample": ratio["bits_per_sample"],
            "bpb": bits_per_byte(ratio["bits_per_sample"], spec.bits),
            "interval": ratio["interval"],
            "channels": {n: math.fsum(nats) / LN2 / frames for n, nats in zip(labels, by_channel, strict=True)},
        }
    main = next(iter(contexts))
    gains = [_bits(track.independent) - track.bits(main) for track in tracks if track.independent is not None]
    coders = [name for name in tracks[0].lossless if all(name in track.lossless for track in tracks)]
    return {
        "tracks": len(tracks),
        "frames": frames,
        "contexts": contexts,
        "cross_channel_gain": _ratio(gains, samples) if len(gains) == len(tracks) else None,
        "lossless": {name: _ratio([float(track.lossless[name]) for track in tracks], samples) for name in coders},
    }


def interval(bits: Sequence[float], samples: Sequence[int]) -> list[float] | None:
    """95 % bootstrap interval [low, high] of total bits over total samples; None for one track.

    Percentiles of `RESAMPLES` ratios of sums, each over as many tracks as there are, drawn with replacement from
    always the same random numbers.
    """
    if len(bits) < 2:
        return None
    rng, n = np.random.default_rng(0), len(bits)
    numerators, denominators = np.asarray(bits, np.float64), np.asarray(samples, np.float64)
    ratios, block = [], max(1, _BLOCK // n)
    for start in range(0, RESAMPLES, block):
        drawn = rng.integers(n, size=(min(block, RESAMPLES - start), n))
        ratios.append(numerators[drawn].sum(1) / denominators[drawn].sum(1))
    return [float(end) for end in np.quantile(np.concatenate(ratios), [_TAIL, 1 - _TAIL])]


def _bits(score: dict[str, list[float]]) -> float:
    return math.fsum(score["channel_nats"]) / LN2


def _ratio(bits: Sequence[float], samples: Sequence[int]) -> dict[str, Any]:
    return {"bits_per_sample": math.fsum(bits) / sum(samples), "interval": interval(bits, samples)}
