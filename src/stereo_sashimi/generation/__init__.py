"""Sampling: `stream.py` runs a model frame by frame, `sample.py` decides what is drawn."""

from stereo_sashimi.generation.sample import Sampler as Sampler
from stereo_sashimi.generation.stream import Stream as Stream
