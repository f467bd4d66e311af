"""Heads: hidden features -> distributions over the codes of every channel."""
