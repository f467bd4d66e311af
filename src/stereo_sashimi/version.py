"""The version of this package: in checkpoints' descriptions and on the command line; pyproject.toml has the same."""

__version__ = "0.1.0"
