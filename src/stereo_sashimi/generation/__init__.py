"""Sampling and scoring: `stream.py` runs a model frame by frame on an engine (`engines/`), `sampling.py` draws audio,
`scoring.py` counts the bits of recordings, `philox.py` has the random numbers.
"""

from stereo_sashimi.audio.files import read as read
from stereo_sashimi.audio.files import write as write
from stereo_sashimi.distributions.sampler import Sampler as Sampler
from stereo_sashimi.generation.engines.engine import ENGINES as ENGINES
from stereo_sashimi.generation.engines.engine import EngineError as EngineError
from stereo_sashimi.generation.results import TrackScore as TrackScore
from stereo_sashimi.generation.sampling import blocks as blocks
from stereo_sashimi.generation.sampling import draw as draw
from stereo_sashimi.generation.sampling import generate as generate
from stereo_sashimi.generation.scoring import score as score
from stereo_sashimi.generation.stream import Stream as Stream
