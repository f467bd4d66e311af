"""Layers: embedding, S4, pools, feed-forward, norms and the per-channel heads. `s4.py` is the file to read first."""

from stereo_sashimi.nn.embedding import EmbeddingConfig as EmbeddingConfig
from stereo_sashimi.nn.embedding import MultiChannelEmbedding as MultiChannelEmbedding
from stereo_sashimi.nn.freeze import freeze as freeze
from stereo_sashimi.nn.heads.head import CategoricalHeadConfig as CategoricalHeadConfig
from stereo_sashimi.nn.heads.head import DMLHeadConfig as DMLHeadConfig
from stereo_sashimi.nn.heads.head import ExpertHeadConfig as ExpertHeadConfig
from stereo_sashimi.nn.heads.head import Head as Head
from stereo_sashimi.nn.reversible_norm import InstanceStatistics as InstanceStatistics
from stereo_sashimi.nn.reversible_norm import ReversibleInstanceNorm1dInput as ReversibleInstanceNorm1dInput
from stereo_sashimi.nn.reversible_norm import ReversibleInstanceNorm1dOutput as ReversibleInstanceNorm1dOutput
from stereo_sashimi.nn.reversible_norm import ReversibleNormInputConfig as ReversibleNormInputConfig
from stereo_sashimi.nn.reversible_norm import ReversibleNormOutputConfig as ReversibleNormOutputConfig
from stereo_sashimi.nn.s4 import S4 as S4
from stereo_sashimi.nn.s4 import S4Config as S4Config
from stereo_sashimi.nn.s4 import S4DConfig as S4DConfig
