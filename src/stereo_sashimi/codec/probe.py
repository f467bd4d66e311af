"""What a model and the coder compute here, as a hash: a file is decoded only where it is the hash of the encoder's.

The compiled engine gives the same bits on any processor, but what prepares its weights (torch) and compiles it (numba)
are other people's, and our own code changes. So the hash is over the code of a fixed recording, every bit of which
hangs on all probabilities before it, and not over how these are computed.
"""

import hashlib
from collections.abc import Iterable

import numpy as np

from stereo_sashimi.codec.batch_coder import BatchCoder
from stereo_sashimi.spec import AudioSpec

FRAMES = 2048
# The last frames are those of so many before: experts look for repetitions.
AGAIN = 600


def probe(coders: Iterable[BatchCoder]) -> str:
    """32 hexadecimal digits; of coders in the order of their channels, which are not moved."""
    digest = hashlib.sha256()
    for coder in coders:
        (code,) = BatchCoder(coder.engine.like(1)).encode([recording(coder.model.spec)])
        digest.update(code)
    return digest.hexdigest()[:32]


def recording(spec: AudioSpec) -> np.ndarray:
    """Codes (frames, channels): a swelling noise with a period, the same again, at last both ends of the range.

    docs/codec.md has it in words.
    """
    t = np.arange(FRAMES * spec.n_channels).reshape(FRAMES, spec.n_channels)
    t[-AGAIN:] = t[-3 * AGAIN : -2 * AGAIN]
    swell = 1 + t // (8 * spec.n_channels)
    noise = t * 48271 % 65521 % 2001 - 1000 + np.abs(t * 7 % 1600 - 800) * 40
    codes = (spec.start_code + noise * swell * (spec.n_levels >> 8) // 32768) % spec.n_levels
    codes[-2:] = np.array([[0], [spec.n_levels - 1]])
    return codes
