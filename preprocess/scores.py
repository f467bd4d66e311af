"""Render the free scores of Freedoom with FluidSynth; the work is in `stereo_sashimi/data/corpora/scores.py`."""

import sys

from stereo_sashimi.data.corpora.scores import main

if __name__ == "__main__":
    sys.exit(main())
