"""Prepare MUSDB18 as 16-bit stereo WAV files; the work is in `stereo_sashimi/data/corpora/musdb.py`."""

import sys

from stereo_sashimi.data.corpora.prepare_command import main

if __name__ == "__main__":
    sys.exit(main())
