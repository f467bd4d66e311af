"""Coders: sizes of real files, channels apart or together, 8 bits, programs that are there, absent or fail."""

import io
import shutil

import numpy as np
import pytest
import soundfile

from stereo_sashimi.metrics.lossless import coded_bits


def music(channels: int, frames: int = 20000) -> np.ndarray:
    rng = np.random.default_rng(0)
    mid = 8000 * np.sin(np.arange(frames) / 30) + 400 * rng.standard_normal(frames)
    return np.stack([mid, mid + 5 * rng.standard_normal(frames)][:channels], axis=1).astype(np.int16)


@pytest.fixture
def no_programs(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)


def test_mid_side_pays_where_channels_are_alike(no_programs):
    found = coded_bits(music(2), 44100)
    assert found["flac -8"] < 0.8 * found["flac -8, no mid/side"] < 0.8 * 16 * 40000
    assert set(coded_bits(music(2)[:, :1], 44100)) == {"flac -8"}
    single_frame = coded_bits(np.zeros((1, 2), np.int16), 44100)
    assert all(bits > 0 and bits % 8 == 0 for bits in [*found.values(), *single_frame.values()])


@pytest.mark.parametrize(("subtype", "form"), [("PCM_S8", "FLAC"), ("PCM_U8", "WAV")])
def test_eight_bits_are_the_top_byte(subtype, form):
    """Of every value, negative ones too: what the coders get is what the model sees."""
    pcm = np.arange(-32768, 32768, 7).astype(np.int16)[:, None]
    file = io.BytesIO()
    soundfile.write(file, pcm, 44100, format=form, subtype=subtype)
    file.seek(0)
    assert np.array_equal(soundfile.read(file, dtype="int16", always_2d=True)[0], pcm >> 8 << 8)


def test_eight_bits_cost_less_and_names_are_of_what_is_here():
    there = ["wavpack -hhx6"] if shutil.which("wavpack") else []
    full, top = coded_bits(music(2), 44100), coded_bits(music(2), 44100, 8)
    assert list(full) == list(top) == ["flac -8", "flac -8, no mid/side", *there]
    assert all(top[name] < full[name] for name in full)
    with pytest.raises(ValueError, match="bits must be 8 or 16; got 12"):
        coded_bits(music(2), 44100, 12)


def test_a_program_that_fails_is_named(monkeypatch, tmp_path):
    program = tmp_path / "wavpack"
    program.write_text("#!/bin/sh\necho broken >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name: str(program))
    with pytest.raises(ValueError, match=r"wavpack -hhx6 .*exit code 3: broken.*baselines=false"):
        coded_bits(music(2), 44100)


def test_rates_that_flac_lacks_are_refused(no_programs):
    with pytest.raises(ValueError, match=r"FLAC cannot code 2 channels at 2000000 Hz.*baselines=false"):
        coded_bits(music(2), 2_000_000)
