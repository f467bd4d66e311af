"""Models of other implementations, loaded into ours: the original S4 repository (`reference.py`)."""

from stereo_sashimi.interop.reference import load_reference as load_reference
