"""Distributions over codes, pure functions shared by the loss, the sampler and the codec: `categorical`, `dml`.

The heads in `nn/heads` make their parameters from hidden features.
"""

from stereo_sashimi.distributions import categorical
from stereo_sashimi.distributions import logistic_mixture as dml

__all__ = ["categorical", "dml"]
