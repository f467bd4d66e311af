"""Making and scoring audio: `stream.py` runs a model frame by frame on an engine (`engine.py`), `sample.py` has its
random numbers, `drawing.py` draws audio in blocks, `whole.py` scores and makes whole recordings, `files.py` reads and
writes them, `live.py` writes them while they are made.
"""

from stereo_sashimi.audio.files import read as read
from stereo_sashimi.audio.files import write as write
from stereo_sashimi.generation.blocks import blocks as blocks
from stereo_sashimi.generation.engines.engine import ENGINES as ENGINES
from stereo_sashimi.generation.engines.engine import EngineError as EngineError
from stereo_sashimi.generation.philox import Sampler as Sampler
from stereo_sashimi.generation.sampling import TrackScore as TrackScore
from stereo_sashimi.generation.sampling import draw as draw
from stereo_sashimi.generation.sampling import generate as generate
from stereo_sashimi.generation.sampling import score as score
from stereo_sashimi.generation.stream import Stream as Stream
