"""The recordings of an evaluation: found by `data=`, read in the model's format with the conversions of training."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import ListConfig

from stereo_sashimi.audio import io
from stereo_sashimi.audio.channels import to_channels
from stereo_sashimi.audio.files import read
from stereo_sashimi.audio.resample import resampled_length
from stereo_sashimi.commands.shared.runs import shown
from stereo_sashimi.data.split import find_audio
from stereo_sashimi.generation.sampling import frames_in
from stereo_sashimi.spec import AudioSpec

# Bad files that one message lists.
MOST_LISTED = 8


@dataclass(frozen=True)
class Conversions:
    """What may be done to a file that is not in the model's format; stereo for a mono model is always mixed down."""

    resample: bool = False
    requantize: bool = False
    upmix: bool = False


@dataclass(frozen=True)
class Track:
    """A recording to be scored: its name in the results, how many frames of it, and the hash of these as PCM.

    `converted` says for people what the conversions change in it.
    """

    file: str
    path: Path
    frames: int
    sha256: str
    conversions: Conversions = Conversions()
    converted: tuple[str, ...] = ()

    def read(self, spec: AudioSpec) -> np.ndarray:
        """The samples that are scored. Raises ValueError, naming the file, for others than those of `sha256`."""
        pcm = read_recording(self.path, spec, self.frames, self.conversions)
        if hashlib.sha256(pcm.data).hexdigest() != self.sha256:
            raise ValueError(f"{self.path} has changed since it was evaluated. Run the command again.")
        return pcm


def read_recording(path: Path, spec: AudioSpec, frames: int, conversions: Conversions) -> np.ndarray:
    """The first frames, counted at the model's rate, as int16 (frames, channels) of `spec`.

    Raises ValueError for a file that needs a conversion that is not asked for, and as `audio.files.read`.
    """
    info = io.probe(path)
    if info.sample_rate != spec.sample_rate and not conversions.resample:
        # A resampled recording has other bits, so nothing here does that unasked.
        raise ValueError(
            f"{path} has {info.sample_rate} Hz, the model {spec.sample_rate} Hz. Set resample=true, or resample the "
            f"file first: `ffmpeg -i in.wav -ar {spec.sample_rate} out.wav`."
        )
    if info.subtype in io.WIDE and not conversions.requantize:
        raise ValueError(f"{path} has {info.subtype[4:]}-bit samples. Set requantize=true, or convert it to 16 bits.")
    if info.n_channels > 2:
        raise ValueError(f"{path} has {info.n_channels} channels; 1 and 2 can be used. Mix it down, or take it out.")
    if info.n_channels < spec.n_channels and not conversions.upmix:
        raise ValueError(
            f"{path} has 1 channel, the model 2. Set upmix=true, which copies it to both sides, or give a stereo file."
        )
    own = replace(spec, n_channels=info.n_channels)
    pcm = read(path, own, frames, resample=conversions.resample, requantize=conversions.requantize)
    return to_channels(pcm, spec.n_channels, upmix=conversions.upmix, name=str(path))


def in_folder(name: str, key: str) -> list[Path]:
    """The audio files of a folder; at least one."""
    folder = Path(name)
    if not folder.is_dir():
        what = f"{key}={name} is a file" if folder.is_file() else f"There is no folder {name}"
        raise ValueError(f"{what}. Give a folder with audio files: {key}=<folder>.")
    found = find_audio(folder)
    if not found:
        raise ValueError(f"{key}={name} holds no audio files ({', '.join(io.AUDIO_SUFFIXES)}). Give another folder.")
    return found


def files(data: Any, exclude: Sequence[str] = ()) -> dict[str, Path]:
    """The recordings by their names in the results: relative to a folder, or as they were given.

    Raises ValueError for an empty or repeating list, a folder without audio, and a name in `exclude` that is not there.
    """
    if isinstance(data, (list, ListConfig)):
        names = [str(name) for name in data]
        if not names:
            raise ValueError("data is an empty list. Give files, data=[a.wav,b.wav], or a folder.")
        if len(set(names)) != len(names):
            raise ValueError(f"data names {next(n for n in names if names.count(n) > 1)} twice. Name each file once.")
        found = {name: Path(name) for name in names}
    elif (path := Path(str(data))).is_file():
        found = {str(data): path}
    else:
        found = {file.relative_to(path).as_posix(): file for file in in_folder(str(data), "data")}
    if unknown := [name for name in exclude if name not in found]:
        raise ValueError(
            f"exclude names {unknown[0]!r}, which is not in data={data}. Names are relative to the folder."
        )
    found = {name: file for name, file in found.items() if name not in exclude}
    if not found:
        raise ValueError(f"exclude leaves nothing of data={data}.")
    return dict(sorted((shown(name), file) for name, file in found.items()))


def tracks(
    found: Mapping[str, Path], spec: AudioSpec, max_seconds: float | None, conversions: Conversions = Conversions()
) -> list[Track]:
    """Read every file once, so that all that cannot be scored are told of before the first one is."""
    limit = None if max_seconds is None else frames_in(float(max_seconds), spec, "max_seconds")
    done, bad = [], []
    for name, path in found.items():
        try:
            info = io.probe(path)
            frames = resampled_length(info.frames, info.sample_rate, spec.sample_rate)
            frames = frames if limit is None else min(frames, limit)
            pcm = read_recording(path, spec, frames, conversions)
            sha256 = hashlib.sha256(pcm.data).hexdigest()
            done.append(Track(name, path, frames, sha256, conversions, _converted(info, spec)))
        except ValueError as error:
            bad.append(str(error))
    if len(bad) == 1:
        raise ValueError(bad[0])
    if bad:
        more = [f"and {len(bad) - MOST_LISTED} more"] if len(bad) > MOST_LISTED else []
        lines = "\n  ".join(bad[:MOST_LISTED] + more)
        raise ValueError(f"{len(bad)} of {len(found)} files cannot be evaluated:\n  {lines}")
    return done


def _converted(info: io.AudioInfo, spec: AudioSpec) -> tuple[str, ...]:
    changes = {
        f"resampled to {spec.sample_rate} Hz": info.sample_rate != spec.sample_rate,
        "rounded to 16 bits": info.subtype in io.WIDE,
        "mixed down to mono": info.n_channels > spec.n_channels,
        "copied to both channels": info.n_channels < spec.n_channels,
    }
    return tuple(what for what, yes in changes.items() if yes)
