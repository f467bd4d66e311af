"""Prepare MUSDB18 as 16-bit mono WAV files, one per channel; the work is in `stereo_sashimi/data/corpora/musdb.py`."""

import sys

from stereo_sashimi.data.corpora.prepare_command import main

if __name__ == "__main__":
    sys.exit(main(split_channels=True))
