"""What test_dataset.py and test_split.py share."""

import numpy as np

from stereo_sashimi.audio import write_pcm
from stereo_sashimi.spec import AudioSpec

RATE = 8000


def make_file(path, frames, channels=2, rate=RATE, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pcm = np.random.default_rng([seed, frames]).integers(-32768, 32768, (frames, channels)).astype(np.int16)
    write_pcm(path, pcm, rate)
    return pcm


def spec(channels=2, rate=RATE, **fields):
    return AudioSpec(rate, channels, **{"bits": 16} | fields)
