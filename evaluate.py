"""Score recordings under a model: `python evaluate.py checkpoint=.. data=..`. See commands/evaluate."""

from stereo_sashimi.commands.cli import main

if __name__ == "__main__":
    main("evaluate")
