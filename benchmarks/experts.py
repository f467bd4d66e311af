"""What each part of the adaptive experts is worth: bits a sample on recordings, and stereo frames a second.

python -m benchmarks.experts FILE_OR_FOLDER ..

Bits are those of the mixture that the experts give, nothing trained, from the first frame of each file on; `mean` is
that of the files, each of which counts the same, `pooled` that of all samples. One thread.
"""

import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from stereo_sashimi.audio.io import probe, read_pcm
from stereo_sashimi.commands.shared.errors import speak
from stereo_sashimi.distributions.logistic_mixture import log_prob
from stereo_sashimi.experts.adaptive import AdaptiveExperts, experts_of
from stereo_sashimi.experts.plan import N_MIXTURES, ExpertsConfig
from stereo_sashimi.metrics.lossless import coded_bits
from stereo_sashimi.spec import LN2

# Frames whose mixtures are in memory at once.
FRAMES = 1 << 15
DEFAULT = ExpertsConfig()


def keeping(*indices: int, **changed: object) -> ExpertsConfig:
    """The bank with some of its least squares alone."""
    names = ("own", "other", "forgetting", "every")
    return replace(DEFAULT, **{name: tuple(getattr(DEFAULT, name)[i] for i in indices) for name in names}, **changed)


VARIANTS = {
    "all": DEFAULT,
    "without the repetition": replace(DEFAULT, repeats=0),
    "without the fast least squares (0.98)": keeping(0, 1, 3),
    "without the slow least squares (0.9998)": keeping(0, 2, 3),
    "without the short least squares (4 + 4)": keeping(0, 1, 2),
    "one least squares, one cascade": keeping(0, steps=(0.1,)),
    "one least squares alone": keeping(0, steps=(), repeats=0),
    "no cascades": replace(DEFAULT, steps=()),
    "cascade 0.1 alone": replace(DEFAULT, steps=(0.1,)),
    "orders 256, 16": replace(DEFAULT, orders=(256, 16)),
    "orders 2048, 256, 16": replace(DEFAULT, orders=(2048, 256, 16)),
    "solved every 32 frames": replace(DEFAULT, every=(32, 32, 32, 32)),
    "one mixing least squares (0.997)": replace(DEFAULT, mixing=(0.997,)),
    "repetitions of 3 seconds": replace(DEFAULT, repeats=2**17),
    "a search every 8192 frames": replace(DEFAULT, search=8192),
}


def measured(config: ExpertsConfig, codes: torch.Tensor) -> tuple[float, float]:
    """Bits of `codes` (1, frames, channels) in all, and the seconds that the experts took."""
    experts = AdaptiveExperts(config, codes.shape[2], 65536)
    state, nats, seconds = experts.initial_state(1), 0.0, 0.0
    for part in codes.split(FRAMES, dim=1):
        since = time.perf_counter()
        said, state = experts.predict(part, state)
        seconds += time.perf_counter() - since
        params = torch.zeros(*part.shape, 3 * N_MIXTURES)
        nats -= float(log_prob(params, part, 65536, experts_of(said).reference).double().sum())
    return nats / LN2, seconds


@speak
def main(words: list[str]) -> None:
    """Print one row a variant, and the coders that are installed."""
    files = [path for word in words for path in (sorted(Path(word).iterdir()) if Path(word).is_dir() else [Path(word)])]
    if not files:
        raise ValueError("name files of 16-bit audio, or folders of them: python -m benchmarks.experts FOLDER ..")
    torch.set_num_threads(1)
    recordings = {path.stem: (read_pcm(path)[0], probe(path).sample_rate) for path in files}
    sizes = np.array([pcm.size for pcm, _ in recordings.values()])
    print(f"| bits a sample | {' | '.join(recordings)} | mean | pooled | frames/s |")
    print("|---" * (len(recordings) + 4) + "|")
    coders = [coded_bits(pcm, rate) for pcm, rate in recordings.values()]
    for name in coders[0]:
        show(name, np.array([bits[name] for bits in coders]), sizes, "")
    measured(DEFAULT, torch.full((1, 100, 2), 32768))
    for name, config in VARIANTS.items():
        results = [
            measured(config, torch.from_numpy(pcm.astype(np.int64))[None] + 32768) for pcm, _ in recordings.values()
        ]
        bits, seconds = np.array(results).T
        speed = sum(len(pcm) for pcm, _ in recordings.values()) / seconds.sum()
        show(name, bits, sizes, f"{speed:,.0f}")


def show(name: str, bits: np.ndarray, sizes: np.ndarray, speed: str) -> None:
    """One row: bits a sample of each recording, their mean, those of all samples together."""
    each = bits / sizes
    numbers = [*each, each.mean(), bits.sum() / sizes.sum()]
    print(f"| {name} | {' | '.join(f'{number:.3f}' for number in numbers)} | {speed} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
