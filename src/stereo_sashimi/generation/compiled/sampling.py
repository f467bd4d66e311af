"""A Sampler as the numbers that the compiled draws read."""

import numpy as np

from stereo_sashimi.distributions.sampler import Sampler

# Places in the array; TEMPERATURE is that of a mixture's choice in a DML head, TOP_K 0 stands for all codes.
TEMPERATURE, SCALE_TEMPERATURE, TOP_K, TOP_P = range(4)


def numbers(sampler: Sampler) -> np.ndarray:
    """One float64 for each place."""
    return np.array([sampler.of_mixture, sampler.of_scale, sampler.top_k or 0, sampler.top_p], np.float64)
