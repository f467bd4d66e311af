"""A Sampler as the numbers that the compiled draws read."""

import numpy as np

from stereo_sashimi.distributions.sampler import Sampler

# Places in the array; TEMPERATURE is that of a mixture's choice in a DML head, TOP_K 0 stands for all codes.
TEMPERATURE, SCALE_TEMPERATURE, TOP_K, TOP_P = range(4)
MOST_CODES = 65536  # more than that no model has


def numbers(sampler: Sampler) -> np.ndarray:
    """One float64 for each place."""
    top_k = min(sampler.top_k or 0, MOST_CODES)
    return np.array([sampler.of_mixture, sampler.of_scale, top_k, sampler.top_p], np.float64)
