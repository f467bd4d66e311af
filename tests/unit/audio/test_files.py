"""Files in a model's format: PCM goes in and out unchanged, anything else is refused with what to change."""

import numpy as np
import pytest
import soundfile

from stereo_sashimi.audio.files import read, write
from stereo_sashimi.audio.io import AudioError, AudioReader, write_pcm
from stereo_sashimi.spec import AudioSpec

SPEC = AudioSpec(44100, 2, 16)


def noise(channels: int = 2) -> np.ndarray:
    return np.random.default_rng(1).integers(-32768, 32767, (40, channels)).astype(np.int16)


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_what_was_written_is_read(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    write(path, noise(), SPEC)
    assert soundfile.info(path).samplerate == 44100
    assert np.array_equal(read(path, SPEC), noise())
    assert np.array_equal(read(str(path), SPEC, 7), noise()[:7])
    with pytest.raises(AudioError, match=r"frames 0 to 41 were asked for, but the file has 40"):
        read(path, SPEC, 41)


def test_a_file_of_another_rate_is_refused(tmp_path):
    """What else does not fit is in e2e/test_bad_checkpoints.py, as prompts."""
    write_pcm(tmp_path / "slow.wav", noise(), 8000)
    message = r"slow\.wav has 8000 Hz, the model 44100 Hz\. Resample .*resample=True.*prompt_resample=true"
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "slow.wav", SPEC)


@pytest.mark.parametrize(("rate", "frames"), [(48000, 22_050), (22050, 22_050), (96000, 1_000), (44100, 500)])
def test_another_rate_is_converted_when_asked(tmp_path, rate, frames):
    """A sine stays the same sine, and its beginning does not depend on how much of it is read."""
    time = np.arange(rate) / rate
    wave = np.stack([np.sin(2 * np.pi * 440 * time), 0.5 * np.cos(2 * np.pi * 1000 * time)], axis=1)
    soundfile.write(tmp_path / "a.wav", np.rint(20000 * wave).astype(np.int16), rate)
    pcm = read(tmp_path / "a.wav", SPEC, resample=True)
    assert (pcm.dtype, pcm.shape) == (np.int16, (44100, 2))
    time = np.arange(44100) / 44100
    expected = np.stack([np.sin(2 * np.pi * 440 * time), 0.5 * np.cos(2 * np.pi * 1000 * time)], axis=1)
    # Away from the ends, to the rounding of both files.
    assert np.abs(pcm - 20000 * expected)[1000:-1000].max() < 3
    assert np.abs(read(tmp_path / "a.wav", SPEC, frames, True) - pcm[:frames].astype(int)).max() <= 1
    assert len(read(tmp_path / "a.wav", SPEC, frames, True)) == frames
    with pytest.raises(AudioError, match="44101"):
        read(tmp_path / "a.wav", SPEC, 44101, True)


def test_conversion_reads_no_more_than_it_needs(tmp_path, monkeypatch):
    write_pcm(tmp_path / "a.wav", noise().repeat(2000, 0), 48000)
    asked, read_frames = [], AudioReader.read

    def watched(file, start, frames, **options):
        asked.append(frames)
        return read_frames(file, start, frames, **options)

    monkeypatch.setattr(AudioReader, "read", watched)
    read(tmp_path / "a.wav", SPEC, 441, True)
    assert 480 < asked[0] < 3000


@pytest.mark.parametrize(
    ("pcm", "message"),
    [
        (noise(1), r"shape \(frames, 2\); got \(40, 1\)"),
        (noise() / 32768, r"numpy array of int16; got float64"),
        (noise()[:0], r"no frames"),
    ],
    ids=["mono", "float", "empty"],
)
def test_an_array_in_another_format_is_not_written(tmp_path, pcm, message):
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "a.wav", pcm, SPEC)
    assert list(tmp_path.iterdir()) == []
