"""What this machine makes of a model, as a hash: a file is decoded only where it is the hash of the encoder's machine.

The compiled engine gives the same bits on any processor; what prepares its weights (torch) and reads its integers
(constriction) are other people's libraries. So the hash is over the packed weights, the probabilities of a fixed
recording, and the code that the range coder makes of them.
"""

import hashlib

import numpy as np

from stereo_sashimi.codec.lanes import Lanes

FRAMES = 70


def probe(lanes: Lanes) -> str:
    """32 hexadecimal digits; `lanes` serves as the model and is not moved."""
    digest, packed = hashlib.sha256(), lanes.packed
    for array in (packed.plan, packed.weights, packed.epsilons, packed.tables, packed.embedding, packed.head):
        digest.update(np.ascontiguousarray(array).tobytes())
    digest.update(np.ascontiguousarray(packed.mixers).tobytes())
    spec, one = lanes.model.spec, lanes.like(1)
    # A slow and a fast wave, a fade, and the two ends of the range; integers only.
    t = np.arange(FRAMES * spec.n_channels).reshape(FRAMES, spec.n_channels)
    codes = (spec.start_code + (t * 48271 % 65521 - 32760) * spec.n_levels * t // (65536 * t.size)) % spec.n_levels
    codes[-2:] = np.array([[0], [spec.n_levels - 1]])
    (words,) = one.encode([codes])
    digest.update(words.astype("<u4").tobytes())
    return digest.hexdigest()[:32]
