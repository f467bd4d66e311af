"""Rendered scores as a data set: the MIDI music of Doom's free data files, played by FluidSynth with a soundfont.

Free and lossless: Freedoom (BSD licence; Debian's `freedoom`) and the MuseScore_General soundfont (MIT licence;
Debian's `musescore-general-soundfont-lossless`). The same versions of all three give the same samples. Sampled
instruments repeat exactly, so scores are for training, and figures come from recordings; every tenth score is kept for
validation.
"""

import argparse
import shutil
import struct
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from stereo_sashimi.audio.io import write_pcm
from stereo_sashimi.data.corpora.prepare_command import run
from stereo_sashimi.data.split import DataError

RATE, CHANNELS = 44100, 2
_VALID_EVERY = 10


def scores(wad: Path) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of the MIDI files in a WAD file. Raises DataError for another file.

    A WAD begins with a magic, the number of lumps and the place of their table: place, size and name of each.
    """
    data = wad.read_bytes()
    try:
        magic, count, table = struct.unpack_from("<4sII", data)
        lumps = [struct.unpack_from("<II8s", data, table + 16 * i) for i in range(count if magic[1:] == b"WAD" else 0)]
    except struct.error:
        lumps = []
    if not lumps:
        raise DataError(f"{wad} is no WAD file.")
    for start, size, name in lumps:
        if (lump := data[start : start + size]).startswith(b"MThd"):
            yield name.rstrip(b"\0").decode("ascii", "replace").lower(), lump


def check_player(soundfont: Path) -> None:
    """Raise DataError where FluidSynth or its soundfont is missing."""
    if shutil.which("fluidsynth") is None:
        raise DataError("FluidSynth plays the scores, and there is no program fluidsynth: apt-get install fluidsynth.")
    if not soundfont.is_file():
        raise DataError(f"there is no soundfont {soundfont}. On Debian: musescore-general-soundfont-lossless.")


def render(score: bytes, soundfont: Path, seconds: float, scratch: Path, *options: str) -> np.ndarray:
    """The first seconds of a MIDI file, int16 (frames, 2). Raises DataError where FluidSynth cannot play it.

    `scratch`: the file that it reads, which goes away. `options`: more of FluidSynth's.
    """
    scratch.parent.mkdir(parents=True, exist_ok=True)
    scratch.write_bytes(score)
    wanted = int(seconds * RATE) * CHANNELS * 2
    shape = ["-r", str(RATE), "-O", "s16", "-T", "raw", "-F", "-"]
    command = ["fluidsynth", "-ni", "-q", *shape, *options, str(soundfont), str(scratch)]
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            data = process.stdout.read(wanted)
            process.kill()
            said = process.stderr.read().decode(errors="replace") if process.stderr else ""
    finally:
        scratch.unlink()
    if len(data) < RATE:
        raise DataError(
            f"FluidSynth did not play {scratch.name} with {soundfont}: {said.strip() or 'it says nothing'}."
        )
    whole = len(data) - len(data) % (CHANNELS * 2)
    return np.frombuffer(data[:whole], "<i2").reshape(-1, CHANNELS)


def prepare(root: Path, soundfont: Path, out: Path, seconds: float) -> dict[str, int]:
    """Render each score of the WAD files in `root` once, to out/train or out/valid; the number of files of each."""
    wads = sorted(root.glob("*.wad"))
    if not wads:
        raise DataError(
            f"{root} has no WAD file. On Debian: `apt-get download freedoom`, `dpkg -x freedoom*.deb freedoom`, then "
            "--root freedoom/usr/share/games/doom."
        )
    check_player(soundfont)
    found = {score: f"{wad.stem}_{name}" for wad in wads for name, score in scores(wad)}
    counts = {"train": 0, "valid": 0}
    for i, (score, name) in enumerate(sorted(found.items(), key=lambda item: item[1])):
        split = "valid" if i % _VALID_EVERY == _VALID_EVERY - 1 else "train"
        (out / split).mkdir(parents=True, exist_ok=True)
        pcm = render(score, soundfont, seconds, out / f".{name}.mid")
        write_pcm(out / split / f"{name}.flac", pcm, RATE)
        counts[split] += 1
    return counts


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; gives the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="folder with freedoom1.wad and freedoom2.wad")
    parser.add_argument("--soundfont", type=Path, required=True, help="MuseScore_General_Full.sf2")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each score (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("data/scores"), help="folder to write (default: %(default)s)")
    return run(prepare, parser, argv)
