"""Models of other implementations, loaded into ours: those of the original S4 repository.

`load_lightning` takes its whole checkpoint files, `load_reference` state dicts of layers, backbones and models.
"""

from stereo_sashimi.interop.lightning import load_lightning as load_lightning
from stereo_sashimi.interop.reference import load_reference as load_reference
