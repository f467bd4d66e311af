"""Compiled CPU loops (numba): vectors, the recurrence of an S4 layer and its adjoint, threads."""
