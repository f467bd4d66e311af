"""Data folders with one thing wrong, or unusual, each: the inputs of `test_bad_input.py`."""

import struct
from collections.abc import Callable
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


def a_file(folder: Path) -> None:
    write_pcm(folder.with_suffix(".wav"), noise(), 44100)
    folder.with_suffix(".wav").rename(folder)


def two_files(folder: Path) -> None:
    folder.mkdir()
    for name in "ab":
        write_pcm(folder / f"{name}.wav", noise(), 44100)


def folder_with_a_file_name(path: Path) -> None:
    path.unlink()
    path.mkdir()


def silent(path: Path) -> None:
    for split in ("train", "valid"):
        write_pcm(path.parents[1] / split / f"{split}.wav", noise() * 0, 44100)


def floats(value: float, frame: int) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        samples = noise().astype(np.float32) / 32768
        samples[frame, 1] = value
        soundfile.write(path, samples, 44100, subtype="FLOAT")

    return write


def cut_off(missing: int) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        soundfile.write(path, noise(frames=20000), 44100)
        path.write_bytes(path.read_bytes()[:-missing])

    return write


FOLDERS: dict[str, Callable[[Path], object]] = {
    "good": good,
    "missing": lambda folder: None,
    "a_file": a_file,
    "empty": Path.mkdir,
    "two_files": two_files,
}
# A file of a good folder, and what was done to it.
FILES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "without_valid": ("valid/valid.wav", Path.unlink),
    "two_valids": ("val", Path.mkdir),
    "folder_with_a_file_name": ("train/train.wav", folder_with_a_file_name),
    "dangling_link": ("train/link.wav", lambda path: path.symlink_to("/nowhere/link.wav")),
    "mono": ("train/voice.wav", lambda path: write_pcm(path, noise(channels=1), 44100)),
    "three_channels": ("train/lcr.wav", lambda path: soundfile.write(path, noise(channels=3), 44100)),
    "six_channels": ("train/surround.wav", lambda path: soundfile.write(path, noise(channels=6), 44100)),
    "not_a_number": ("train/train.wav", floats(np.nan, 70)),
    "infinite": ("train/train.wav", floats(-np.inf, 7)),
    "wide": ("train/train.wav", lambda path: soundfile.write(path, noise(), 44100, subtype="PCM_24")),
    "wider": ("train/train.wav", lambda path: soundfile.write(path, noise(), 44100, subtype="PCM_32")),
    "truncated": ("train/train.wav", lambda path: path.write_bytes(path.read_bytes()[:-100])),
    "truncated_flac": ("train/music.flac", cut_off(20000)),
    "truncated_ogg": ("train/music.ogg", cut_off(3000)),
    "zero_bytes": ("train/train.wav", lambda path: path.write_bytes(b"")),
    "not_audio": ("train/train.wav", lambda path: path.write_bytes(b"hello" + struct.pack("<20I", *range(20)))),
    "no_frames": ("train/train.wav", lambda path: write_pcm(path, noise(frames=0), 44100)),
    "one_frame": ("train/train.wav", lambda path: write_pcm(path, noise(frames=1), 44100)),
    "silent": ("train/train.wav", silent),
    "mixed_rates": ("train/other.wav", lambda path: write_pcm(path, noise(), 48000)),
}


def make(name: str, folder: Path) -> None:
    """Make the folder of this name."""
    if name in FOLDERS:
        FOLDERS[name](folder)
    else:
        file, spoil = FILES[name]
        good(folder)
        spoil(folder / file)
