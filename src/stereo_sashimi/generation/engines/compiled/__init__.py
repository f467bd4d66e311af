"""The compiled engine: a model as a program of numba loops, one frame at a time, on a CPU."""
