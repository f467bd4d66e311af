"""Sizes that the compiled loops and their callers share; importing this does not import numba."""

# Numbers of one vector (AVX-512 in float32).
SIMD_WIDTH = 16
# Steps whose states are alive at once in the adjoint of the scan.
SEGMENT = 64
