"""A writer of small soundfonts."""

import struct

# What a zone is for (keys, velocities), and the sample that it plays; None: defaults for the zones behind it.
Zone = tuple[tuple[int, int] | None, tuple[int, int] | None, int | None]


def soundfont(presets: dict[tuple[int, int], list[Zone]]) -> bytes:
    """The bytes of an SF2 file: for each (bank, program) an instrument with these zones."""
    phdr = pbag = pgen = inst = ibag = igen = b""
    zones = generators = 0
    for number, ((bank, program), content) in enumerate(presets.items()):
        phdr += struct.pack("<20sHHHIII", b"kit", program, bank, number, 0, 0, 0)
        pbag += struct.pack("<HH", number, 0)
        pgen += struct.pack("<HH", 41, number)
        inst += struct.pack("<20sH", b"kit", zones)
        for keys, velocities, sample in content:
            ibag += struct.pack("<HH", generators, 0)
            for name, span in ((43, keys), (44, velocities)):
                if span is not None:
                    igen, generators = igen + struct.pack("<HBB", name, *span), generators + 1
            if sample is not None:
                igen, generators = igen + struct.pack("<HH", 53, sample), generators + 1
            zones += 1
    n = len(presets)
    tables = {
        "phdr": phdr + struct.pack("<20sHHHIII", b"EOP", 0, 0, n, 0, 0, 0), "pbag": pbag + struct.pack("<HH", n, 0),
        "pmod": bytes(10), "pgen": pgen + bytes(4), "inst": inst + struct.pack("<20sH", b"EOI", zones),
        "ibag": ibag + struct.pack("<HH", generators, 0), "imod": bytes(10), "igen": igen + bytes(4), "shdr": bytes(46),
    }  # fmt: skip
    listed = b"".join(_chunk(name, data) for name, data in tables.items())
    # The samples have an odd length: a byte of padding follows.
    content = b"sfbk" + _chunk("LIST", b"sdtasmpl\1\0\0\0\7") + _chunk("LIST", b"pdta" + listed)
    return _chunk("RIFF", content)


def _chunk(name: str, data: bytes) -> bytes:
    return name.encode() + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)
