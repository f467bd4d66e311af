"""Lossless codec: recordings coded by a model's probabilities. The format is in docs/codec.md."""

from stereo_sashimi.codec.coding import decode as decode
from stereo_sashimi.codec.coding import decode_blocks as decode_blocks
from stereo_sashimi.codec.coding import encode as encode
from stereo_sashimi.codec.container import CodecError as CodecError
