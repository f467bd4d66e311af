"""Single hits of drum kits as a data set: FluidSynth plays them with a soundfont, and recorded ones join them.

Free and lossless: the MuseScore_General soundfont (MIT licence; Debian's `musescore-general-soundfont-lossless`), and
the drums among the sounds of Sonic Pi (CC0; Debian's `sonic-pi-samples`). A hit has FRAMES frames at RATE from its
onset on and is as loud as can be. The model of drums that this package ships is trained on them.
"""

import argparse
import struct
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from stereo_sashimi.audio.channels import to_channels
from stereo_sashimi.audio.io import probe, read_pcm, write_pcm
from stereo_sashimi.audio.quantize import float_to_pcm
from stereo_sashimi.audio.resample import resample
from stereo_sashimi.data.corpora import scores
from stereo_sashimi.data.corpora.prepare_command import run
from stereo_sashimi.data.corpora.soundfont import group_by_recording
from stereo_sashimi.data.split import DataError

RATE, FRAMES = 16000, 16384
# Programs of General MIDI's percussion channel, and its keys from the bass drum to the second crash cymbal.
KITS = {
    "standard": 0, "standard-2": 2, "standard-5": 5, "room": 8, "room-4": 12, "power": 16, "power-2": 18,
    "electronic": 24, "tr-808": 25, "jazz": 32, "jazz-3": 35, "brush": 40, "orchestra": 48,
}  # fmt: skip
KEYS = range(35, 58)
VELOCITIES = (127, 100, 70)
# Kits share recordings, in other tunings and levels: so many hits of one recording are taken, so that none outweighs
# the others. There are few: training hears each hit lower and longer, and higher and shorter, too.
MOST = 3
SPEEDS = {"_slower": 0.87, "_slow": 0.93, "_fast": 1.07, "_faster": 1.15}
# Milliseconds of one hit, and from its end to the next, for its reverberation.
_HIT, _REST = 1100, 900
# The soundfont is all but mono: what there is of stereo is the room.
_ROOM = {"level": 0.8, "room-size": 0.4, "damp": 0.3, "width": 1.0}
# Of the recorded drums: everything that begins so, but what is no single hit.
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


def hit(pcm: np.ndarray, rate: float) -> np.ndarray | None:
    """The hit in a recording, int16 (FRAMES, 2) at RATE: from its onset on, at full level; None for silence."""
    samples = resample(pcm.astype(np.float32) / np.float32(32768), round(rate), RATE)
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


def played(soundfont: Path, scratch: Path) -> Iterator[tuple[int, str, np.ndarray, int]]:
    """Number of the recording, name, PCM and sample rate of the hits of all kits.

    Recordings are numbered from the lowest key to the highest: neighbours are drums of a kind.
    """
    notes = [(program, key, velocity) for key in KEYS for program in KITS.values() for velocity in VELOCITIES]
    recordings = group_by_recording(soundfont, notes)
    each = (_HIT + _REST) * scores.RATE // 1000
    room = [word for key, value in _ROOM.items() for word in ("-o", f"synth.reverb.{key}={value}")]
    for kit, program in KITS.items():
        for velocity in VELOCITIES:
            seconds = len(KEYS) * each / scores.RATE
            pcm = scores.render(hits(program, velocity), soundfont, seconds, scratch, "-C", "0", *room)
            for i, key in enumerate(KEYS):
                if (recording := recordings.get((program, key, velocity))) is not None:
                    yield recording, f"{kit}_{key}_{velocity}", pcm[i * each : (i + 1) * each], scores.RATE


def recorded(root: Path) -> Iterator[tuple[int, str, np.ndarray, int]]:
    """Number, name, PCM and sample rate of the drums in the folder of Sonic Pi's sounds.

    Raises:
        DataError: there are none.
    """
    files = [path for path in sorted(root.glob("*.flac")) if path.stem.startswith(_RECORDED) and path.stem not in _NOT]
    if not files:
        raise DataError(
            f"{root} has no drums: it is not the folder with the sounds of Sonic Pi. On Debian: `apt-get download "
            "sonic-pi-samples`, `dpkg -x sonic-pi-samples*.deb sonic-pi`, then --root "
            "sonic-pi/usr/share/sonic-pi/samples."
        )
    for number, path in enumerate(files):
        pcm = to_channels(read_pcm(path)[0], 2, upmix=True, name=path.name, dataset="drums")
        yield number, path.stem, pcm, probe(path).sample_rate


def prepare(root: Path, soundfont: Path, out: Path) -> dict[str, int]:
    """Write all hits to out/train, out/valid and out/test; the number of files of each.

    Of eight recordings one is for validation and one for test, with all of its hits: what is held out was never heard
    in training.
    """
    scores.check_player(soundfont)
    counts = {"train": 0, "valid": 0, "test": 0}
    for source in (recorded(root), played(soundfont, out / ".hits.mid")):
        taken: defaultdict[int, list[bytes]] = defaultdict(list)
        for recording, name, pcm, rate in source:
            found, before = hit(pcm, rate), taken[recording]
            if found is None or len(before) == MOST or found.tobytes() in before:
                continue
            before.append(found.tobytes())
            split = {3: "valid", 7: "test"}.get(recording % 8, "train")
            (out / split).mkdir(parents=True, exist_ok=True)
            versions: dict[str, np.ndarray | None] = {"": found}
            if split == "train":
                versions |= {speed: hit(pcm, rate * factor) for speed, factor in SPEEDS.items()}
            for speed, heard in versions.items():
                if heard is not None:
                    write_pcm(out / split / f"{name}{speed}.flac", heard, RATE)
                    counts[split] += 1
    return counts


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; gives the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="folder with the .flac files of Sonic Pi")
    parser.add_argument("--soundfont", type=Path, required=True, help="MuseScore_General_Full.sf2")
    parser.add_argument("--out", type=Path, default=Path("data/drums"), help="folder to write (default: %(default)s)")
    return run(prepare, parser, argv)
