"""Data folders with one thing wrong, or unusual, each: the inputs of `test_bad_input.py`."""

import struct
from pathlib import Path

import numpy as np
import soundfile

from stereo_sashimi.audio.io import write_pcm


def noise(channels: int = 2, frames: int = 200) -> np.ndarray:
    return np.random.default_rng(frames).integers(-2000, 2000, (frames, channels)).astype(np.int16)


def good(folder: Path) -> None:
    for split in ("train", "valid", "test"):
        (folder / split).mkdir(parents=True)
        write_pcm(folder / split / f"{split}.wav", noise(), 44100)


def missing(folder: Path) -> None:
    assert not folder.exists()


def a_file(folder: Path) -> None:
    write_pcm(folder.with_suffix(".wav"), noise(), 44100)
    folder.with_suffix(".wav").rename(folder)


def empty(folder: Path) -> None:
    folder.mkdir()


def two_files(folder: Path) -> None:
    folder.mkdir()
    for name in "ab":
        write_pcm(folder / f"{name}.wav", noise(), 44100)


def without_valid(folder: Path) -> None:
    good(folder)
    (folder / "valid" / "valid.wav").unlink()


def two_valids(folder: Path) -> None:
    good(folder)
    (folder / "val").mkdir()


def folder_with_a_file_name(folder: Path) -> None:
    good(folder)
    (folder / "train" / "train.wav").unlink()
    (folder / "train" / "train.wav").mkdir()


def dangling_link(folder: Path) -> None:
    good(folder)
    (folder / "train" / "link.wav").symlink_to("/nowhere/link.wav")


def mono(folder: Path) -> None:
    good(folder)
    write_pcm(folder / "train" / "voice.wav", noise(channels=1), 44100)


def three_channels(folder: Path) -> None:
    good(folder)
    soundfile.write(folder / "train" / "lcr.wav", noise(channels=3), 44100)


def six_channels(folder: Path) -> None:
    good(folder)
    soundfile.write(folder / "train" / "surround.wav", noise(channels=6), 44100)


def floats(folder: Path, value: float, frame: int) -> None:
    good(folder)
    samples = noise().astype(np.float32) / 32768
    samples[frame, 1] = value
    soundfile.write(folder / "train" / "train.wav", samples, 44100, subtype="FLOAT")


def not_a_number(folder: Path) -> None:
    floats(folder, np.nan, 70)


def infinite(folder: Path) -> None:
    floats(folder, -np.inf, 7)


def wide(folder: Path) -> None:
    good(folder)
    soundfile.write(folder / "train" / "train.wav", noise(), 44100, subtype="PCM_24")


def wider(folder: Path) -> None:
    good(folder)
    soundfile.write(folder / "train" / "train.wav", noise(), 44100, subtype="PCM_32")


def truncated(folder: Path) -> None:
    good(folder)
    path = folder / "train" / "train.wav"
    path.write_bytes(path.read_bytes()[:-100])


def cut_off(folder: Path, name: str, missing: int) -> None:
    good(folder)
    path = folder / "train" / name
    soundfile.write(path, noise(frames=20000) / 32768, 44100)
    path.write_bytes(path.read_bytes()[:-missing])


def truncated_flac(folder: Path) -> None:
    cut_off(folder, "music.flac", 20000)


def truncated_ogg(folder: Path) -> None:
    cut_off(folder, "music.ogg", 3000)


def zero_bytes(folder: Path) -> None:
    good(folder)
    (folder / "train" / "train.wav").write_bytes(b"")


def not_audio(folder: Path) -> None:
    good(folder)
    (folder / "train" / "train.wav").write_bytes(b"hello" + struct.pack("<20I", *range(20)))


def no_frames(folder: Path) -> None:
    good(folder)
    write_pcm(folder / "train" / "train.wav", noise(frames=0), 44100)


def one_frame(folder: Path) -> None:
    good(folder)
    write_pcm(folder / "train" / "train.wav", noise(frames=1), 44100)


def silent(folder: Path) -> None:
    good(folder)
    for split in ("train", "valid"):
        write_pcm(folder / split / f"{split}.wav", noise() * 0, 44100)


def mixed_rates(folder: Path) -> None:
    good(folder)
    write_pcm(folder / "train" / "other.wav", noise(), 48000)
