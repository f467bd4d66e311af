"""Split the CC0 sounds of Sonic Pi into train, valid and test; see `stereo_sashimi/data/corpora/sonicpi.py`."""

import sys

from stereo_sashimi.data.corpora.sonicpi import main

if __name__ == "__main__":
    sys.exit(main())
