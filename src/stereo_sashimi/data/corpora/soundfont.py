"""Which recordings the notes of a soundfont play, so that a split can keep a recording out of training.

SoundFont 2.04, section 7: a preset has zones, each with an instrument; an instrument has zones, each with a sample; a
zone may be for some keys and velocities only, and a first zone without a target holds defaults. Kits share recordings:
two names are no sign that two notes are two sounds.
"""

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from stereo_sashimi.data.split import DataError

Note = tuple[int, int, int]
_PERCUSSION_BANK = 128
# Generators (section 8.1.2) and the layout of the records (section 7.2 to 7.9).
_KEYS, _VELOCITIES, _INSTRUMENT, _SAMPLE = 43, 44, 41, 53
_RECORDS = {"phdr": "<20sHHHIII", "pbag": "<HH", "pgen": "<HBB", "inst": "<20sH", "ibag": "<HH", "igen": "<HBB"}


def group_by_recording(soundfont: Path, notes: Iterable[Note]) -> dict[Note, int]:
    """For each percussion note (program, key, velocity) its group: notes with a recording in common are in one.

    Groups are numbered in the order of their first note; a note that plays nothing is left out.

    Raises:
        DataError: the file is no soundfont.
    """
    with soundfont.open("rb") as file:
        try:
            tables = {name: list(struct.iter_unpack(_RECORDS[name], data)) for name, data in _chunks(file)}
            played = {note: found for note in notes if (found := _recordings(tables, *note))}
        except (struct.error, LookupError, ValueError) as error:
            raise DataError(f"{soundfont} is no soundfont (SF2), or is cut off.") from error
    groups: list[set[int]] = []
    for found in played.values():
        same = [group for group in groups if group & found] or [set()]
        groups = [group for group in groups if group not in same[1:]]
        if not same[0]:
            groups.append(same[0])
        same[0].update(found, *same[1:])
    return {note: next(i for i, group in enumerate(groups) if group & found) for note, found in played.items()}


def _chunks(file: BinaryIO) -> Iterator[tuple[str, bytes]]:
    """The tables of _RECORDS in the file's list `pdta`; the samples themselves are skipped."""
    magic, _, form = struct.unpack("<4sI4s", file.read(12))
    if (magic, form) != (b"RIFF", b"sfbk"):
        raise ValueError("no RIFF of form sfbk")
    while header := file.read(8):
        name, size = struct.unpack("<4sI", header)
        if name == b"LIST" and file.read(4) == b"pdta":
            continue
        padded = size + size % 2 - (4 if name == b"LIST" else 0)
        if (text := name.decode("ascii")) in _RECORDS:
            yield text, file.read(padded)[:size]
        else:
            file.seek(padded, 1)


def _recordings(tables: dict[str, list], program: int, key: int, velocity: int) -> set[int]:
    """The numbers of the samples that a percussion note plays."""

    def matching(header: str, row: int, first: int, bag: str, generators: str, target: int) -> Iterator[int]:
        """The targets of the zones of one preset or instrument that are for this key and velocity."""
        defaults: dict[int, tuple[int, int]] = {}
        for zone in range(tables[header][row][first], tables[header][row + 1][first]):
            start, stop = tables[bag][zone][0], tables[bag][zone + 1][0]
            found = {name: (low, high) for name, low, high in tables[generators][start:stop]}
            if target not in found:
                defaults = found
                continue
            (lowest, highest), (softest, loudest) = (
                (defaults | found).get(name, (0, 127)) for name in (_KEYS, _VELOCITIES)
            )
            if lowest <= key <= highest and softest <= velocity <= loudest:
                yield found[target][0] + 256 * found[target][1]

    return {
        sample
        for row, preset in enumerate(tables["phdr"][:-1])
        if preset[1:3] == (program, _PERCUSSION_BANK)
        for instrument in matching("phdr", row, 3, "pbag", "pgen", _INSTRUMENT)
        for sample in matching("inst", instrument, 1, "ibag", "igen", _SAMPLE)
    }
