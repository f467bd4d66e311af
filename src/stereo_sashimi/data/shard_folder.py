"""Shards: the clips of a folder of audio as litdata keeps them, for collections that are larger than a disk.

`<address>/<split>` is a litdata data set. Its item i is the PCM of clip i, little-endian int16, frame after frame; the
key `audio` of its index.json has the rate, the channels, `sample_len`, and the name and frames of each track. Items are
read by their number, so all that `AudioFolder` and its samplers promise holds here too, see
docs/adr/0014-shards-by-number.md.
"""

import json
import logging
import os
import shutil
from collections.abc import Callable
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int16

from stereo_sashimi.audio.io import AudioInfo, write_whole
from stereo_sashimi.data.datamodule import AudioDataModule
from stereo_sashimi.data.dataset import AudioFolder
from stereo_sashimi.data.split import SPLITS, DataError, FolderSplit
from stereo_sashimi.spec import AudioSpec

INSTALL = "pip install 'stereo-sashimi[litdata]'"
INDEX = "index.json"
# Where litdata reads parts of shards; from other hosts it takes whole ones and keeps them.
REMOTE = ("s3://", "r2://", "gs://")
_SHARD_BYTES = 2**26


def _litdata(module: str) -> Any:
    # It tells of its caches, and these are not used.
    logging.getLogger("litdata").setLevel(logging.WARNING)
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise DataError(f"shards are read and written with litdata, which is not installed: {INSTALL}.") from error


class Shards:
    """One split: what its index says, and its clips by number.

    Raises DataError where there is no such index, or a shard of a folder is not there or cut short.

    `address`: a folder, or where litdata finds one.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._opened: tuple[int, Any] | None = None
        index = self._index()
        try:
            content = json.loads(index.read_text(encoding="utf-8"))
            audio, sizes = content["audio"], {chunk["filename"]: chunk["chunk_bytes"] for chunk in content["chunks"]}
            self.sample_rate, self.n_channels = int(audio["sample_rate"]), int(audio["channels"])
            self.sample_len = int(audio["sample_len"])
            self.tracks = [
                AudioInfo(Path(name), self.sample_rate, self.n_channels, int(frames), "PCM_16")
                for name, frames in audio["tracks"]
            ]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{address}: its {INDEX} was not written by `stereo-sashimi shards` ({error!r}). Make the shards again."
            ) from error
        if "://" in address:
            return
        # litdata would wait for it as for a download.
        for name, size in sizes.items():
            path = index.with_name(name)
            if not path.is_file() or path.stat().st_size != size:
                raise DataError(f"{path} is not there with its {size:,} bytes. Copy the folder of shards again.")

    def _index(self) -> Path:
        if "://" not in self.address:
            index = Path(self.address, INDEX)
            if not index.is_file():
                raise DataError(
                    f"there are no shards in {self.address}, as it has no {INDEX}.\n"
                    "  Set dataset.path to a folder that `stereo-sashimi shards` made."
                )
            _litdata("litdata")
            return index
        if not self.address.startswith(REMOTE):
            raise DataError(f"{self.address}: shards are read from a folder, {', '.join(REMOTE)}.")
        return Path(self._stream().input_dir.path, INDEX)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": None}

    def _stream(self) -> Any:
        # Neither open files nor connections outlive a fork.
        if self._opened is None or self._opened[0] != os.getpid():
            opens = _litdata("litdata").StreamingDataset
            try:
                self._opened = os.getpid(), opens(self.address)
            # Each kind of host has errors of its own, and no class in common; this is the only call that is guarded.
            except Exception as error:
                raise DataError(f"{self.address}: litdata cannot read its {INDEX} ({error}).") from error
        return self._opened[1]

    def read(self, item: int) -> Int16[np.ndarray, "frames channels"]:
        """A clip by its number, of all clips with the short rests of tracks."""
        return np.frombuffer(self._stream()[item], "<i2").reshape(-1, self.n_channels)


class ShardFolder(AudioFolder):
    """The clips of `shards`. Arguments and errors as AudioFolder's."""

    def __init__(self, shards: Shards, spec: AudioSpec, sample_len: int, **options: Any) -> None:
        super().__init__(shards.tracks, spec, sample_len, **options)
        self._shards = shards
        items = [-(-track.frames // sample_len) for track in shards.tracks]
        self._item = np.concatenate([[0], np.cumsum(items, dtype=np.int64)])

    def _frames_of(self, file: int, start: int, frames: int) -> tuple[Int16[np.ndarray, "frames channels"], int]:
        first, last = start // self.sample_len, -(-(start + frames) // self.sample_len)
        clips = [self._shards.read(int(self._item[file]) + clip) for clip in range(first, last)]
        return np.concatenate(clips)[start - first * self.sample_len :][:frames], 0


class ShardDataModule(AudioDataModule):
    """Shards that `write_shards` made, as batches of codes.

    - `path`: the folder of shards, relative to `data_dir` unless absolute, or its address, as s3://bucket/folder.
    - `sample_rate`, `sample_len`, `is_stereo`: those of the shards; `sample_rate` may be None.

    Other arguments as AudioDataModule's. Raises DataError where a shard differs from the arguments.
    """

    def __init__(self, *, path: str, data_dir: str = ".", drop_last: bool = True, **settings: Any) -> None:
        super().__init__(path=path, data_dir=data_dir, **settings)
        self.address = path if "://" in path else str(self.folder)
        self._drop_last = drop_last

    @property
    def spec(self) -> AudioSpec:
        """The format of the codes, at the rate of the shards."""
        if self._spec is None:
            self._spec = AudioSpec(self._target_rate or self._shards["train"].sample_rate, self.d_input, **self._format)
        return self._spec

    @cached_property
    def split(self) -> FolderSplit:
        """The tracks of train, valid and test."""
        return FolderSplit({s: [t.path for t in shards.tracks] for s, shards in self._shards.items()}, "by shards")

    @cached_property
    def _shards(self) -> dict[str, Shards]:
        found = {split: Shards(f"{self.address}/{split}") for split in SPLITS}
        rate = self._target_rate or found["train"].sample_rate
        stereo = str(self.d_input == 2).lower()
        for shards in found.values():
            for key, given, asked, held in (
                ("sample_len", self.sample_len, self.sample_len, shards.sample_len),
                ("sample_rate", self._target_rate or "null", rate, shards.sample_rate),
                ("is_stereo", stereo, self.d_input, shards.n_channels),
            ):
                if asked != held:
                    what = {"sample_len": "frames a clip", "sample_rate": "Hz", "is_stereo": "channels"}[key]
                    raise DataError(
                        f"dataset {self.name!r}: dataset.{key}={given}, but {shards.address} has {held} {what}, not "
                        f"{asked}.\n  Set what the shards have, or make others with `stereo-sashimi shards`."
                    )
        return found

    def _folder(self, split: str) -> AudioFolder:
        return ShardFolder(
            self._shards[split], self.spec, self.sample_len,
            warm_up=self._warm_up(split), drop_last=self._drop_last, name=self.name,
        )  # fmt: skip


def write_shards(
    datamodule: AudioDataModule,
    out: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    shard_bytes: int = _SHARD_BYTES,
) -> dict[str, int]:
    """Write all clips of a data module that keeps the rests of files; returns the number of clips of each split.

    The folder `out` is there when it is complete. `progress`: called with the clips written and all clips.
    `shard_bytes`: of one shard, at least a clip.
    Raises DataError where `out` is there already or cannot be written.
    """
    writer_of = _litdata("litdata.streaming.writer").BinaryWriter
    if out.exists():
        raise DataError(f"{out} is there already. Give another folder, out=<folder>, or delete that one.")
    datamodule.setup()
    counts = {split: len(datamodule.datasets[split]) for split in SPLITS}
    part = out.with_name(f".{out.name}.part")
    done, clip_bytes = 0, 2 * datamodule.d_input * datamodule.sample_len
    # What a killed process left.
    shutil.rmtree(part, ignore_errors=True)
    try:
        for split in SPLITS:
            data = datamodule.datasets[split]
            writer = writer_of(str(part / split), chunk_bytes=max(shard_bytes, 2 * clip_bytes))
            for clip in range(counts[split]):
                writer[clip] = data.pcm(clip).astype("<i2").tobytes()
                done += 1
                progress(done, sum(counts.values()))
            writer.done()
            writer.merge()
            _describe(part / split / INDEX, data, datamodule)
        os.rename(part, out)
    except OSError as error:
        raise DataError(f"{out} cannot be made: {error.strerror}. Give a folder that can be written.") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return counts


def _describe(index: Path, data: AudioFolder, datamodule: AudioDataModule) -> None:
    """Add to litdata's index what was cut into clips; no path of this machine is in it."""
    content = json.loads(index.read_text(encoding="utf-8"))
    names = [path.relative_to(datamodule.folder).as_posix() for path, _ in data.lengths]
    content["audio"] = {
        "sample_rate": data.spec.sample_rate,
        "channels": data.spec.n_channels,
        "sample_len": data.sample_len,
        "tracks": [[name, frames] for name, (_, frames) in zip(names, data.lengths, strict=True)],
    }
    write_whole(index, json.dumps(content).encode())
