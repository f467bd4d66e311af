"""The probabilities that a model gives here, as a hash: a file is decoded only where it is the hash of the encoder's.

The compiled engine gives the same bits on any processor; what prepares its weights (torch) and reads its integers
(constriction) are other people's libraries, and our own code changes. So the hash is over the integer probabilities of
a fixed recording and the words that the range coder makes of them, not over how either is computed.
"""

import hashlib

import constriction
import numpy as np

from stereo_sashimi.codec.batch_coder import FAMILY, BatchCoder
from stereo_sashimi.spec import AudioSpec

FRAMES = 128


def probe(coder: BatchCoder) -> str:
    """32 hexadecimal digits; of the model of `coder`, which is not moved."""
    digest, encoder = hashlib.sha256(), constriction.stream.queue.RangeEncoder()
    for ((weights, cells),) in BatchCoder(coder.engine.like(1)).weigh([recording(coder.model.spec)]):
        digest.update(weights.astype("<u4").tobytes())
        encoder.encode(cells, FAMILY, weights)
    digest.update(encoder.get_compressed().astype("<u4").tobytes())
    return digest.hexdigest()[:32]


def recording(spec: AudioSpec) -> np.ndarray:
    """Codes (frames, channels) that jump and swell to full scale, then the two ends of the range; docs/codec.md."""
    t = np.arange(FRAMES * spec.n_channels).reshape(FRAMES, spec.n_channels)
    codes = (spec.start_code + (t * 48271 % 65521 - 32760) * spec.n_levels * t // (65536 * t.size)) % spec.n_levels
    codes[-2:] = np.array([[0], [spec.n_levels - 1]])
    return codes
