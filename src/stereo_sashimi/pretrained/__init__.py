"""The model that comes with this package: config.json and model.safetensors, as exported, and its card, README.md."""

from pathlib import Path

# What commands and `stereo_sashimi.load` call it.
NAME = "pretrained"
FOLDER = Path(__file__).parent
