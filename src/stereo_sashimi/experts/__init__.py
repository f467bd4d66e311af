"""Adaptive experts: linear predictors that learn while they read, and what they say of the next code of each channel.

`plan.py` has their sizes, `loops.py` and `filters.py` the compiled loops, `adaptive.py` the door to them. The
mathematics to read, which the loops are tested against, is in `tests/reference_experts.py`.
"""
