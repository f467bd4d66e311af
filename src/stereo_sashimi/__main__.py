"""`python -m stereo_sashimi <command> [key=value ...]`: see `commands/cli.py`."""

from stereo_sashimi.commands.cli import main

if __name__ == "__main__":
    main()
