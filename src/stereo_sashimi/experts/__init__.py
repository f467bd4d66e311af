"""Adaptive experts: linear predictors that learn while they read, and what they say of the next code of each channel.

`plan.py` has their sizes, `reference_experts.py` the mathematics to read, `loops.py` and `filters.py` the same
compiled, `adaptive.py` the door: `predict(codes, state) -> (Experts, state)`.
"""
