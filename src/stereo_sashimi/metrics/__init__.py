"""Numbers about models and audio: `likelihood.py` (bits, accuracy)."""

from stereo_sashimi.metrics.likelihood import Likelihood as Likelihood
from stereo_sashimi.metrics.likelihood import check_metrics as check_metrics
