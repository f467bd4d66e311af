"""The sounds of docs/gallery.md are what the shipped model draws, on any machine, and the page names them all."""

import re
from pathlib import Path

import numpy as np
import pytest

import stereo_sashimi
from stereo_sashimi.audio.io import read_pcm
from stereo_sashimi.distributions.sampler import Sampler
from stereo_sashimi.generation.sampling import draw

GALLERY = Path(__file__).parents[2] / "docs/gallery"


def test_drums_are_drawn_again_to_the_bit():
    model = stereo_sashimi.load("drums")
    pcm, _ = draw(model, 2000, range(16), sampler=Sampler(temperature=0.9, top_p=0.95))
    for seed, found in enumerate(pcm):
        assert np.array_equal(found, read_pcm(GALLERY / f"drums-{seed}.flac", 0, 2000)[0])


def test_they_are_hits_that_die_away():
    """Loud at first, and from quarter to quarter less, to the end: cymbals ring on."""
    for path in GALLERY.glob("drums-*.flac"):
        energy = (read_pcm(path)[0].astype(float) ** 2).sum(axis=1)
        assert energy.max() > 2 * (0.5 * 32768) ** 2, path
        quarters = energy.reshape(4, -1).sum(axis=1)
        assert (np.diff(quarters) <= 0).all(), path
        assert quarters[0] > 2 * quarters[3], path


@pytest.mark.parametrize("kind", ["drums", "data"])
def test_the_page_has_every_sound(kind):
    shown = re.findall(rf'src="gallery/({kind}-\d+\.flac)"', GALLERY.with_suffix(".md").read_text())
    assert sorted(shown) == sorted(path.name for path in GALLERY.glob(f"{kind}-*.flac"))
