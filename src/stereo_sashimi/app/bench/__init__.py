"""Benchmarks that users run on their own machine: `python -m stereo_sashimi.app.bench --help`."""
