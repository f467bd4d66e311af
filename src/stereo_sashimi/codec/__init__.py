"""Lossless codec: recordings coded by a model's probabilities. `encode` and `decode` are in `compress.py`, audio files
in `files.py`, the format in `container.py`.
"""

from stereo_sashimi.codec.coding import decode as decode
from stereo_sashimi.codec.coding import encode as encode
from stereo_sashimi.codec.container import CodecError as CodecError
