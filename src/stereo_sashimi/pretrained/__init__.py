"""The models that come with this package: config.json and model.safetensors, as exported, and their card, README.md."""

from pathlib import Path

FOLDER = Path(__file__).parent
# What commands and `stereo_sashimi.load` call those that generate: one of drum hits, and one of sounds of all kinds.
DRUMS, NAME = "drums", "pretrained"
# Those of the codec, by profile. Coded files name theirs: a better one gets another number, and the old one stays.
PROFILES = {"fast": "fast-1", "default": "default-1", "best": "best-1"}
MODELS = {DRUMS: FOLDER / DRUMS, NAME: FOLDER} | {name: FOLDER / name for name in PROFILES.values()}
