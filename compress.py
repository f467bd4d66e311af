"""Lossless compression: `python compress.py action=encode|decode input=..`. See commands/compress."""

from stereo_sashimi.commands.cli import main

if __name__ == "__main__":
    main("compress")
