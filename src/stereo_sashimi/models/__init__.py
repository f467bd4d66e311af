"""Sashimi (the backbone) and LanguageModel (embedding, backbone, head)."""

from stereo_sashimi.models.language_model import LanguageModel as LanguageModel
from stereo_sashimi.models.language_model import LanguageModelConfig as LanguageModelConfig
from stereo_sashimi.models.sashimi import Sashimi as Sashimi
from stereo_sashimi.models.sashimi import SashimiConfig as SashimiConfig
from stereo_sashimi.models.sashimi import SashimiState as SashimiState
