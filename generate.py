"""Sample audio from a trained model: `python generate.py checkpoint=.. seconds=..`. See commands/generate."""

from stereo_sashimi.commands.cli import main

if __name__ == "__main__":
    main("generate")
