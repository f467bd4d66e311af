"""Train SaShiMi: `python train.py experiment=audio/sashimi-sample`. See commands/train."""

from stereo_sashimi.commands.cli import main

if __name__ == "__main__":
    main("train")
