"""`stereo-sashimi prepare <data set> [options]`: what the scripts of preprocess/ do, with the options they take."""

import sys
from collections.abc import Callable, Sequence
from functools import partial

from stereo_sashimi.data.corpora import drums, prepare_command, scores, sonicpi

DATA_SETS: dict[str, Callable[[Sequence[str]], int]] = {
    "musdb18stereo": prepare_command.main,
    "musdb18mono": partial(prepare_command.main, split_channels=True),
    "sonicpi": sonicpi.main,
    "scores": scores.main,
    "drums": drums.main,
}


def prepare(words: Sequence[str]) -> int:
    """Prepare the data set that the first word names; returns the exit code. Raises ValueError for another name."""
    if words and words[0] in ("-h", "--help"):
        print(f"stereo-sashimi prepare {'|'.join(DATA_SETS)} [options]\n\nprepare <data set> --help lists its options.")
        return 0
    if not words or words[0] not in DATA_SETS:
        given = f"got {words[0]!r}" if words else "none was given"
        raise ValueError(f"prepare needs a data set, one of {', '.join(DATA_SETS)}; {given}.")
    # What the parser of options calls the program.
    sys.argv[0] = f"stereo-sashimi prepare {words[0]}"
    return DATA_SETS[words[0]](words[1:])
