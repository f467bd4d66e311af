"""The tracks of MUSDB18-HQ, MUSDB18 stems, stempeg's sample and prepared folders; `musdb.py` writes the clips.

Listing tracks decodes nothing. MUSDB18-HQ: `<root>/{train,test}/<track>/<target>.wav`. MUSDB18: `<root>/{train,test}/
<track>.stem.mp4`, five AAC streams in the order of TARGETS (https://doi.org/10.5281/zenodo.1117372). `musdb` and
`stempeg` cannot be imported without ffmpeg, so their packaged files are found through their metadata.
"""

import hashlib
import importlib.metadata
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from stereo_sashimi.audio.io import probe, read_pcm
from stereo_sashimi.audio.quantize import float_to_pcm
from stereo_sashimi.data.split import SPLITS

TARGETS = ("mixture", "drums", "bass", "other", "vocals")
SAMPLE_RATE = 44100
INSTALL = "pip install 'stereo-sashimi[stems]'"

_STEM_SUFFIX = ".stem.mp4"
# Parts of the one sample track, in sixths, so that no second of it is in two splits.
_SAMPLE_PARTS = {"train": (0, 4), "valid": (4, 5), "test": (5, 6)}
# Bytes of a file name's start: room for target, clip index, channel and suffix within the usual 255.
_NAME_BYTES = 200
_AAC_FRAMES = 1024


class SourceError(ValueError):
    """A source of tracks is missing or not as MUSDB has it; the message names the file and the remedy."""


@dataclass(frozen=True)
class Source:
    """One target of a track, where it is, and what its files are to be called.

    - `split`: train, valid or test. `path`: the file; `label`: its name in manifests, relative to the source.
    - `stem`: start of the file names, unique in the split.
    - `stream`: index of the audio stream in a stem file, None for a WAV file.
    - `part`: the sixths of the file to use, from the first number up to the second.
    """

    track: str
    target: str
    split: str
    path: Path
    label: str
    stem: str
    stream: int | None = None
    part: tuple[int, int] = (0, 6)


@dataclass(frozen=True)
class Recording:
    """An opened Source: frames `first` to `last` of a file, decoded by `decoder` (soundfile or pyav).

    `read(start, frames)` gives int16 (frames, 2), and for each channel how many values were clipped.
    """

    first: int
    last: int
    decoder: str
    read: Callable[[int, int], tuple[np.ndarray, list[int]]]


def check_targets(targets: Sequence[str]) -> tuple[str, ...]:
    """`targets` in the order of TARGETS, each once. Raises SourceError for an unknown one or none."""
    for target in targets:
        if target not in TARGETS:
            raise SourceError(f"unknown target {target!r}; --targets takes any of {','.join(TARGETS)}.")
    if not targets:
        raise SourceError(f"no target was given; --targets takes any of {','.join(TARGETS)}.")
    return tuple(target for target in TARGETS if target in targets)


def list_tracks(root: Path, targets: Sequence[str] | None) -> tuple[str, list[tuple[Source, ...]]]:
    """The kind of a folder (musdb18hq, musdb18 or prepared) and its tracks with the wanted targets (None: all).

    Raises SourceError for a folder that is none of these, or a prepared one that lacks a target.
    """
    root = Path(root)
    if (root / "manifest.json").is_file():
        return "prepared", _prepared_tracks(root, targets)
    if missing := [name for name in ("train", "test") if not (root / name).is_dir()]:
        what = f"no folder {missing[0]}/ in it" if root.is_dir() else "no such folder"
        raise SourceError(
            f"{root}: there is {what}. --root takes the folder of MUSDB18-HQ or MUSDB18 that "
            "holds train/ and test/, or a prepared folder with manifest.json. How to get it: run without --root."
        )
    inside = [(path, part) for part in ("train", "test") for path in sorted((root / part).glob("[!.]*"))]
    stems = [(path, part) for path, part in inside if path.name.endswith(_STEM_SUFFIX)]
    folders = [(path, part) for path, part in inside if path.is_dir()]
    if bool(stems) == bool(folders):
        raise SourceError(
            f"{root}: train/ and test/ hold {'both' if stems else 'neither'} track folders (MUSDB18-HQ) and "
            f"*{_STEM_SUFFIX} files (MUSDB18); exactly one of the two is needed."
        )
    validation = validation_tracks()
    found = stems or folders
    names = [path.name.removesuffix(_STEM_SUFFIX) if stems else path.name for path, _ in found]
    splits = [
        "valid" if part == "train" and _nfc(name) in validation else part
        for name, (_, part) in zip(names, found, strict=True)
    ]
    starts = _unique_starts(list(zip(splits, names, strict=True)))
    tracks = []
    for (path, _), name, split, start in zip(found, names, splits, starts, strict=True):
        sources = []
        for target in TARGETS if targets is None else targets:
            file = path if stems else path / f"{target}.wav"
            label = file.relative_to(root).as_posix()
            stream = TARGETS.index(target) if stems else None
            sources.append(Source(name, target, split, file, label, f"{start}_{target}", stream))
        tracks.append(tuple(sources))
    return ("musdb18" if stems else "musdb18hq"), tracks


def sample_tracks(targets: Sequence[str]) -> list[tuple[Source, ...]]:
    """The 6-second MUSDB18 stem file in stempeg's wheel as three tracks: its first 4/6 train, 1/6 valid, 1/6 test."""
    path = sample_path()
    name = path.name.removesuffix(_STEM_SUFFIX)
    start = _unique_starts([("", name)])[0]
    return [
        tuple(
            Source(name, t, split, path, f"stempeg/{path.name}", f"{start}_{t}", TARGETS.index(t), part)
            for t in targets
        )
        for split, part in _SAMPLE_PARTS.items()
    ]


def sample_path() -> Path:
    """The stem file that stempeg's wheel carries. Raises SourceError if stempeg is not installed."""
    return _packaged("stempeg", _STEM_SUFFIX)


def validation_tracks() -> frozenset[str]:
    """Names of the official validation tracks, from the file that the `musdb` package carries."""
    import yaml

    path = _packaged("musdb", "mus.yaml")
    return frozenset(_nfc(name) for name in yaml.safe_load(path.read_text(encoding="utf-8"))["validation_tracks"])


def open_source(source: Source) -> Recording:
    """Open one target of a track; a stem is decoded as a whole, a WAV file is read piece by piece.

    Raises SourceError or AudioError, naming the file, if it is not stereo at 44.1 kHz, ends early, or cannot be
    decoded here.
    """
    path = source.path
    if source.stream is None:
        info = probe(path)
        _check_format(path, info.n_channels, info.sample_rate)
        if info.subtype != "PCM_16":
            raise SourceError(f"{path}: samples of format {info.subtype}; MUSDB18-HQ has 16-bit PCM (PCM_16).")
        return Recording(
            *_bounds(source, info.frames), "soundfile", lambda start, n: (read_pcm(path, start, n)[0], [0, 0])
        )
    samples, rate = decode_stem(path, source.stream)
    _check_format(path, samples.shape[1], rate)

    def read(start: int, frames: int) -> tuple[np.ndarray, list[int]]:
        # Lossy: peaks may pass full scale.
        pcm, clipped = zip(*(float_to_pcm(channel) for channel in samples[start : start + frames].T), strict=True)
        return np.stack(pcm, axis=1), list(clipped)

    return Recording(*_bounds(source, len(samples)), "pyav", read)


def decode_stem(path: Path, stream: int) -> tuple[Float32[np.ndarray, "frames channels"], int]:
    """Samples and rate of one audio stream (0 to 4) of a stem file; full scale is 1 and may be passed.

    Raises SourceError for an unreadable or truncated file, or if PyAV is not installed.
    """
    if not path.is_file():
        raise SourceError(f"{path}: there is no such file.")
    try:
        import av
    except ImportError:
        raise SourceError(f"{path}: stem files need PyAV, which is not installed.\n  {INSTALL}") from None
    try:
        with av.open(str(path)) as container:
            if (found := len(container.streams.audio)) != len(TARGETS):
                raise SourceError(f"{path}: {found} audio streams; a MUSDB18 stem file has {len(TARGETS)}.")
            track = container.streams.audio[stream]
            frames = list(container.decode(track))
            promised = round(track.duration * track.time_base * track.rate) if track.duration and track.time_base else 0
            channels, rate = track.channels, track.rate
    except av.FFmpegError as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise SourceError(f"{path}: the stem file is truncated or damaged ({reason}). Fetch it again.") from error
    if kinds := {frame.format.name for frame in frames} - {"fltp"}:
        raise SourceError(f"{path}: stream {stream} decodes to {kinds.pop()}, not to float; it is not AAC.")
    pieces = [frame.to_ndarray() for frame in frames]
    samples = np.concatenate([np.zeros((channels, 0), np.float32), *pieces], axis=1).T
    # The decoder may leave out the encoder's priming, never more than two packets.
    if len(samples) < promised - 2 * _AAC_FRAMES:
        raise SourceError(
            f"{path}: the stem file ends early; stream {stream} has {len(samples)} of {promised} frames. Fetch it "
            "again."
        )
    return np.ascontiguousarray(samples, dtype=np.float32), rate


def _check_format(path: Path, channels: int, rate: int) -> None:
    if (channels, rate) != (2, SAMPLE_RATE):
        raise SourceError(f"{path}: {channels} channel(s) at {rate} Hz; it must be stereo at {SAMPLE_RATE} Hz.")


def _bounds(source: Source, frames: int) -> tuple[int, int]:
    first, last = source.part
    return frames * first // 6, frames * last // 6


def _prepared_tracks(root: Path, targets: Sequence[str] | None) -> list[tuple[Source, ...]]:
    manifest = root / "manifest.json"
    try:
        files = json.loads(manifest.read_text(encoding="utf-8"))["files"]
        rows = [(f["track"], f["target"], f["split"], f["path"]) for f in files if f["split"] in SPLITS]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{manifest}: not the manifest of a prepared folder ({error!r}).") from None
    if missing := set(targets or ()) - {target for _, target, _, _ in rows}:
        raise SourceError(f"{root}: holds no files of target {min(missing)!r}; leave it out of --targets.")
    return [
        (Source(track, target, split, root / path, path, Path(path).stem),)
        for track, target, split, path in rows
        if targets is None or target in targets
    ]


def _packaged(package: str, suffix: str) -> Path:
    try:
        distribution = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        raise SourceError(f"the Python package {package} is not installed.\n  {INSTALL}") from None
    for file in distribution.files or ():
        if file.name.endswith(suffix) and Path(str(distribution.locate_file(file))).is_file():
            return Path(str(distribution.locate_file(file)))
    raise SourceError(f"{package} {distribution.version} does not carry *{suffix}.\n  {INSTALL} --force-reinstall")


def _nfc(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _clean(name: str) -> str:
    """A track name that every file system takes; hidden files would not be found again, so no dot begins it."""
    clean = re.sub(r'[\x00-\x1f\x7f/\\:*?"<>|]', "_", _nfc(name)).strip(" .")
    return clean.encode(errors="replace")[:_NAME_BYTES].decode(errors="ignore").strip(" .") or "track"


def _unique_starts(tracks: Sequence[tuple[str, str]]) -> list[str]:
    """File name starts for (split, name) pairs; names that would meet, whatever the case, get a digest."""
    clean = [(split, _clean(name)) for split, name in tracks]
    count = Counter((split, start.casefold()) for split, start in clean)
    digests = [hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:8] for _, name in tracks]
    return [
        f"{start}-{digest}" if count[split, start.casefold()] > 1 else start
        for digest, (split, start) in zip(digests, clean, strict=True)
    ]
