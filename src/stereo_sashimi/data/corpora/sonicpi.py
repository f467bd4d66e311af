"""The sounds of Sonic Pi as a data set: CC0 recordings from freesound.org, 44.1 kHz stereo FLAC, split by file.

They come with the program, as the Debian package `sonic-pi-samples` or the folder `etc/samples` of its repository.
The model that this package ships is trained on them (`stereo_sashimi/pretrained`).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from stereo_sashimi.audio.io import probe, write_whole
from stereo_sashimi.data.corpora.prepare_command import run
from stereo_sashimi.data.split import SPLITS, DataError

# Never trained on: five loops whose channels differ, for the tables of this project, and four sounds for validation.
HELD_OUT = {
    "test": ("loop_garzul", "loop_3d_printer", "loop_safari", "loop_weirdo", "loop_perc1"),
    "valid": ("loop_mehackit2", "guit_e_fifths", "ambi_haunted_hum", "glitch_perc2"),
}
RATE, CHANNELS, SUBTYPE = 44100, 2, "PCM_16"


def prepare(root: Path, out: Path) -> dict[str, int]:
    """Copy the stereo sounds of `root` to out/train, out/valid and out/test; the number of files of each.

    Sounds that are mono or have another format are left out. Raises DataError if a sound that is held out is missing.
    """
    sounds = sorted(root.glob("*.flac"))
    missing = [name for names in HELD_OUT.values() for name in names if root / f"{name}.flac" not in sounds]
    if missing:
        raise DataError(
            f"{root} has no {missing[0]}.flac: it is not the folder with the sounds of Sonic Pi. On Debian: "
            "`apt-get download sonic-pi-samples`, `dpkg -x sonic-pi-samples*.deb sonic-pi`, then --root "
            "sonic-pi/usr/share/sonic-pi/samples. Elsewhere: etc/samples of https://github.com/sonic-pi-net/sonic-pi."
        )
    counts = dict.fromkeys(SPLITS, 0)
    for sound in sounds:
        info = probe(sound)
        if (info.sample_rate, info.n_channels, info.subtype) != (RATE, CHANNELS, SUBTYPE):
            continue
        split = next((split for split, names in HELD_OUT.items() if sound.stem in names), "train")
        (out / split).mkdir(parents=True, exist_ok=True)
        write_whole(out / split / sound.name, sound.read_bytes())
        counts[split] += 1
    return counts


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; gives the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="folder with the .flac files of Sonic Pi")
    parser.add_argument("--out", type=Path, default=Path("data/sonicpi"), help="folder to write (default: %(default)s)")
    return run(prepare, parser, argv)
