"""Units of likelihoods: nats, bits per sample (one code of one channel), bits per byte of PCM."""

import math

LN2 = math.log(2)


def bits_per_byte(bits_per_sample: float, bits: int) -> float:
    """Bits per byte of PCM whose codes have so many `bits`."""
    return 8 / bits * bits_per_sample
