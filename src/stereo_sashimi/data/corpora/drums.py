"""Single hits of drum kits as a data set: FluidSynth plays them with a soundfont, and recorded ones join them.

Free and lossless: the MuseScore_General soundfont (MIT licence; Debian's `musescore-general-soundfont-lossless`), and
the drums among the sounds of Sonic Pi (CC0; Debian's `sonic-pi-samples`). A hit has FRAMES frames at RATE from its
onset on and is as loud as can be. The model of drums that this package ships is trained on them.
"""

import argparse
import struct
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from stereo_sashimi.audio.channels import to_channels
from stereo_sashimi.audio.io import probe, read_pcm, write_pcm
from stereo_sashimi.audio.quantize import float_to_pcm
from stereo_sashimi.audio.resample import resample
from stereo_sashimi.data.corpora import scores
from stereo_sashimi.data.split import DataError

RATE, FRAMES = 16000, 16384
# Programs of General MIDI's percussion channel, and its keys from the bass drum to the second crash cymbal.
KITS = {
    "standard": 0, "standard-2": 2, "standard-5": 5, "room": 8, "room-4": 12, "power": 16, "power-2": 18,
    "electronic": 24, "tr-808": 25, "jazz": 32, "jazz-3": 35, "brush": 40, "orchestra": 48,
}  # fmt: skip
KEYS = range(35, 58)
VELOCITIES = (127, 100, 70)
# Milliseconds of one hit, and from its end to the next, for its reverberation.
_HIT, _REST = 1100, 900
# The soundfont is all but mono: what there is of stereo is the room.
_ROOM = {"level": 0.8, "room-size": 0.4, "damp": 0.3, "width": 1.0}
# Of the recorded drums: everything that begins so, but what is no single hit. Every second one is for test.
_RECORDED = ("bd_", "drum_", "sn_", "elec_", "tabla_", "perc_")
_NOT = ("drum_roll", "perc_swash", "perc_swoosh", "perc_till", "perc_door", "elec_bell", "elec_chime", "elec_beep")
# Onsets begin at this share of the peak; the last part of what is cut off is faded out.
_ONSET, _FADE = 0.003, 1024


def hits(program: int, velocity: int) -> bytes:
    """A MIDI file (type 0, a tick a millisecond) that plays each of KEYS for _HIT ms, then rests for _REST.

    MIDI 1.0: channel 9 is percussion, controller 120 "all sound off".
    """
    track = bytes([0, 0xC9, program])
    for key in KEYS:
        track += bytes([0, 0x99, key, velocity]) + _delay(_HIT) + bytes([0xB9, 120, 0])
        # A volume that it has already: something to wait for.
        track += _delay(_REST) + bytes([0xB9, 7, 100])
    track += bytes([0, 0xFF, 0x2F, 0])
    # The default tempo is 500 ms a beat.
    return struct.pack(">4sIHHH4sI", b"MThd", 6, 0, 1, 500, b"MTrk", len(track)) + track


def _delay(ticks: int) -> bytes:
    return bytes([0x80 | ticks >> 7, ticks & 0x7F])


def hit(pcm: np.ndarray, rate: int) -> np.ndarray | None:
    """The hit in a recording, int16 (FRAMES, 2) at RATE: from its onset on, at full level; None for silence."""
    samples = resample(pcm.astype(np.float32) / np.float32(32768), rate, RATE)
    size = np.abs(samples).max(axis=1, initial=0.0)
    if size.max(initial=0.0) < 1e-3:
        return None
    onset = int(np.argmax(size > _ONSET * size.max()))
    out = np.zeros((FRAMES, 2), np.float32)
    part = samples[onset : onset + FRAMES]
    if len(samples) - onset > FRAMES:
        part[-_FADE:] *= np.linspace(1.0, 0.0, _FADE, dtype=np.float32)[:, None]
    out[: len(part)] = part * (0.95 / np.abs(part).max())
    return float_to_pcm(out)[0]


def played(soundfont: Path, scratch: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Names and hits of all kits, each sound once."""
    seen, each = set(), (_HIT + _REST) * scores.RATE // 1000
    room = [word for key, value in _ROOM.items() for word in ("-o", f"synth.reverb.{key}={value}")]
    for kit, program in KITS.items():
        for velocity in VELOCITIES:
            seconds = len(KEYS) * each / scores.RATE
            pcm = scores.render(hits(program, velocity), soundfont, seconds, scratch, "-C", "0", *room)
            for i, key in enumerate(KEYS):
                found = hit(pcm[i * each : (i + 1) * each], scores.RATE)
                if found is not None and (content := found.tobytes()) not in seen:
                    seen.add(content)
                    yield f"{kit}_{key}_{velocity}", found


def recorded(root: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Names and hits of the drums in the folder of Sonic Pi's sounds. Raises DataError where there are none."""
    files = [path for path in sorted(root.glob("*.flac")) if path.stem.startswith(_RECORDED) and path.stem not in _NOT]
    if not files:
        raise DataError(
            f"{root} has no drums: it is not the folder with the sounds of Sonic Pi. On Debian: `apt-get download "
            "sonic-pi-samples`, `dpkg -x sonic-pi-samples*.deb sonic-pi`, then --root "
            "sonic-pi/usr/share/sonic-pi/samples."
        )
    for path in files:
        pcm = to_channels(read_pcm(path)[0], 2, upmix=True, name=path.name, dataset="drums")
        if (found := hit(pcm, probe(path).sample_rate)) is not None:
            yield path.stem, found


def prepare(root: Path, soundfont: Path, out: Path) -> dict[str, int]:
    """Write all hits to out/train, out/valid and out/test; the number of files of each.

    Of the kits every 16th key of a kit is for validation, at all its velocities. Of the recorded drums every second one
    is for test, so that figures come from recordings that no soundfont has.
    """
    scores.check_player(soundfont)
    counts = {"train": 0, "valid": 0, "test": 0}

    def write(split: str, name: str, pcm: np.ndarray) -> None:
        (out / split).mkdir(parents=True, exist_ok=True)
        write_pcm(out / split / f"{name}.flac", pcm, RATE)
        counts[split] += 1

    for i, (name, pcm) in enumerate(recorded(root)):
        write("test" if i % 2 else "train", name, pcm)
    for name, pcm in played(soundfont, out / ".hits.mid"):
        kit, key, _ = name.split("_")
        write("valid" if (list(KITS).index(kit) * len(KEYS) + int(key)) % 16 == 0 else "train", name, pcm)
    return counts


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; gives the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="folder with the .flac files of Sonic Pi")
    parser.add_argument("--soundfont", type=Path, required=True, help="MuseScore_General_Full.sf2")
    parser.add_argument("--out", type=Path, default=Path("data/drums"), help="folder to write (default: %(default)s)")
    options = parser.parse_args(argv)
    try:
        counts = prepare(options.root, options.soundfont, options.out)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{options.out}: " + ", ".join(f"{count} {split}" for split, count in counts.items()), file=sys.stderr)
    return 0
