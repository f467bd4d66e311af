"""Engines: what steps a frozen model through time. `engine.py` is the interface and the choice."""
