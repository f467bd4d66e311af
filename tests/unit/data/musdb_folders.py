"""What test_prepare.py and test_prepare_failures.py share."""

import json

import numpy as np

from stereo_sashimi.data.corpora.prepare_command import main

TRACKS = {"train/A Band - One": 0, "train/B - Ünder 水": 1, "train/Young Griffo - Pennies": 2, "test/Z - Last": 3}
FRAMES = 7000


def noise(seed, frames=FRAMES, channels=2):
    return np.random.default_rng(seed).integers(-3000, 3000, (frames, channels)).astype(np.int16)


def run(*args, **options):
    return main([*map(str, args), "--jobs", "1"], **options)


def manifest(out):
    return json.loads((out / "manifest.json").read_text())


def tree(out):
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}


def error_line(capsys, *parts):
    lines = capsys.readouterr().err.strip().splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == 1
    assert "Traceback" not in "".join(lines)
    for part in parts:
        assert str(part) in "\n".join(lines)
