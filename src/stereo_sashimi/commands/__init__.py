"""Commands: Hydra configs in, runs and files out. The only room that knows Hydra; `build.py` makes the objects."""
