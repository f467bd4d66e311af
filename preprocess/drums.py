"""Play the hits of drum kits with FluidSynth; the work is in `stereo_sashimi/data/corpora/drums.py`."""

import sys

from stereo_sashimi.data.corpora.drums import main

if __name__ == "__main__":
    sys.exit(main())
