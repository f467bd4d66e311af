"""A folder of audio as fixed-length clips of codes, read by seeking; `split.py` chooses the files.

Item i is `(codes, i)`, codes behind those of its warm-up; `collate` makes the Batch that models see.
"""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int16, Int64
from torch import Tensor
from torch.utils.data import Dataset

from stereo_sashimi.audio.channels import check_channels, to_channels
from stereo_sashimi.audio.io import AudioError, AudioInfo, check_readable, probe, read_pcm, write_pcm
from stereo_sashimi.audio.quantize import encode, float_to_pcm
from stereo_sashimi.audio.resample import resample, resampled_length
from stereo_sashimi.data.split import DataError
from stereo_sashimi.spec import AudioSpec

_log = logging.getLogger(__name__)
# Part of a converted file's name: another number where the conversion has changed.
_CONVERSION = 2


class Batch(NamedTuple):
    """One batch of clips.

    - `codes`: (batch, length, channels) int64 in [0, n_levels).
    - `lengths`: (batch,) int64, how many frames of each clip are audio; the rest are start codes.
    - `clips`: (batch,) int64, index of each clip in its data set (`AudioFolder.describe`).
    - `first`: (batch,) bool, the clip begins its track; None where nobody needs to know.
    - `before`: (batch, warm_up, channels), the frames in front of each clip in its track, and start codes in front of
      the track; None without a warm-up.
    """

    codes: Int64[Tensor, "batch length channels"]
    lengths: Int64[Tensor, "batch"]
    clips: Int64[Tensor, "batch"]
    first: Bool[Tensor, "batch"] | None = None
    before: Int64[Tensor, "batch warm_up channels"] | None = None


def collate(
    items: Sequence[tuple[Int64[Tensor, "_ channels"], int]],
    start_code: int,
    begins: Int64[np.ndarray, "tracks"] | None = None,
    warm_up: int = 0,
) -> Batch:
    """Stack clips, shorter ones padded at the end with `start_code` to the longest of the batch.

    `begins`: the indices of the clips that begin a track, for `Batch.first`. `warm_up`: as in `AudioFolder`.
    """
    before = torch.stack([codes[:warm_up] for codes, _ in items]) if warm_up else None
    items = [(codes[warm_up:], index) for codes, index in items]
    lengths = torch.tensor([len(codes) for codes, _ in items])
    codes = torch.full((len(items), int(lengths.max()), items[0][0].shape[1]), start_code, dtype=torch.int64)
    for row, (clip, _) in zip(codes, items, strict=True):
        row[: len(clip)] = clip
    clips = torch.tensor([index for _, index in items])
    first = None if begins is None else torch.from_numpy(np.isin(clips.numpy(), begins))
    return Batch(codes, lengths, clips, first, before)


class AudioFolder(Dataset[tuple[Tensor, int]]):
    """Clips of `sample_len` consecutive frames, file after file, never across two files.

    - `files`: audio files in data set order, or their headers. Only headers are read here; an item reads its frames.
    - `spec`: the codes to make. Files of another rate than `spec.sample_rate` need `resampler`.
    - `sample_len`: frames in a clip.
    - `warm_up`: so many frames in front of its clip come with an item, start codes where the file has none.
    - `drop_last`: true leaves out the short rest of each file, false keeps it as a shorter clip.
    - `resampler`: None, or "soxr" or "torchaudio": a file of another rate is converted once as a whole and kept as
      16-bit WAV under `<cache_folder>/.cache-resampled/<rate>/`, so that its clips join without edges.
    - `rate_from`: the file that `spec.sample_rate` was read from, for error messages.
    - `upmix`, `requantize`: see `audio.channels.to_channels` and `audio.io.read_pcm`.
    - `name`: the data set, for error messages.

    Samples of float, lossy and requantized files that exceed full scale are clipped, and counted in `clipped`; the
    first file is logged as a warning, the others as information, each once.
    Raises DataError, ChannelError or AudioError, naming the file, for files that do not fit.
    """

    def __init__(
        self,
        files: Sequence[Path | AudioInfo],
        spec: AudioSpec,
        sample_len: int,
        *,
        warm_up: int = 0,
        drop_last: bool = True,
        resampler: str | None = None,
        cache_folder: Path | None = None,
        rate_from: Path | None = None,
        upmix: bool = False,
        requantize: bool = False,
        name: str = "dataset",
    ) -> None:
        self.spec = spec
        self.sample_len, self.warm_up = sample_len, warm_up
        self.upmix = upmix
        self.requantize = requantize
        self.name = name
        self._resampler = resampler
        self._cache_folder = cache_folder
        self._sources = [file if isinstance(file, AudioInfo) else probe(file) for file in files]
        for source in self._sources:
            check_channels(source.n_channels, spec.n_channels, upmix=upmix, name=source.path.name, dataset=name)
            check_readable(source, requantize=requantize)
        self._check_rates(rate_from)
        # What is read: the file itself, or its converted copy.
        self._clipped_in_conversion: dict[Path, int] = {}
        self._paths = [self._at_rate(source) for source in self._sources]
        if self._clipped_in_conversion:
            _log.warning(
                "dataset %r: %d samples in %d files, such as %s, exceeded full scale and were clipped on the way to "
                "%d Hz.",
                *(name, sum(self._clipped_in_conversion.values()), len(self._clipped_in_conversion)),
                *(next(iter(self._clipped_in_conversion)), spec.sample_rate),
            )
        self._frames = [
            s.frames
            if s.sample_rate == spec.sample_rate
            else resampled_length(s.frames, s.sample_rate, spec.sample_rate)
            for s in self._sources
        ]
        clips = [n // sample_len if drop_last else -(-n // sample_len) for n in self._frames]
        # _first[k] is the index of file k's first clip; the last entry is the number of clips.
        self._first = np.concatenate([[0], np.cumsum(clips, dtype=np.int64)])
        if len(self) == 0:
            raise self._no_clips()
        # Clipped values of each clip that was read; shared, so that the loader's worker processes count here too.
        self._clipped = torch.zeros(len(self), dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return int(self._first[-1])

    def __getitem__(self, index: int) -> tuple[Int64[Tensor, "frames channels"], int]:
        codes = torch.from_numpy(encode(self.pcm(index), self.spec))
        return torch.cat([self._before(index), codes]) if self.warm_up else codes, index

    def pcm(self, index: int) -> Int16[np.ndarray, "frames channels"]:
        """Samples of a clip, in the channels and at the rate of `spec`."""
        file, pcm, clipped = self._read(index)
        if clipped:
            self._note_clipped(file, index, clipped)
        return self._remixed(file, pcm)

    def _before(self, index: int) -> Int64[Tensor, "warm_up channels"]:
        file, start = self._locate(index)
        frames = min(start, self.warm_up)
        blank = torch.full((self.warm_up - frames, self.spec.n_channels), self.spec.start_code, dtype=torch.int64)
        if not frames:
            return blank
        # What is clipped here is counted in its own clip.
        pcm, _ = self._frames_of(file, start - frames, frames)
        return torch.cat([blank, torch.from_numpy(encode(self._remixed(file, pcm), self.spec))])

    def _frames_of(self, file: int, start: int, frames: int) -> tuple[Int16[np.ndarray, "frames channels"], int]:
        """Frames of a file, and how many of their values were clipped."""
        return read_pcm(self._paths[file], start, frames, requantize=self.requantize)

    def _remixed(self, file: int, pcm: np.ndarray) -> Int16[np.ndarray, "frames channels"]:
        if pcm.shape[1] == self.spec.n_channels:
            return pcm
        name = self._sources[file].path.name
        return to_channels(pcm, self.spec.n_channels, upmix=self.upmix, name=name, dataset=self.name)

    @property
    def lengths(self) -> list[tuple[Path, int]]:
        """Each file with its frames at `spec.sample_rate`."""
        return [(source.path, frames) for source, frames in zip(self._sources, self._frames, strict=True)]

    @property
    def seconds(self) -> float:
        """Length of all files."""
        return sum(self._frames) / self.spec.sample_rate

    def is_silent(self) -> bool:
        """Whether every sample of every clip is zero; reads up to the first that is not."""
        return not any(self._read(index)[1].any() for index in range(len(self)))

    @property
    def tracks(self) -> tuple[Int64[np.ndarray, "tracks"], Int64[np.ndarray, "tracks"]]:
        """Index of the first clip of each file, and how many clips it has; files without any are left out."""
        counts = np.diff(self._first)
        return self._first[:-1][counts > 0], counts[counts > 0]

    @property
    def n_remixed(self) -> int:
        """Files with another number of channels than the data set: mixed down to mono, or copied to both sides."""
        return sum(source.n_channels != self.spec.n_channels for source in self._sources)

    def check_context(self, context_len: int, split: str) -> None:
        """Raise DataError if the loss, which skips `context_len` frames of a clip, is left without any."""
        longest = min(self.sample_len, max(self._frames))
        if context_len >= longest:
            raise DataError(
                f"dataset {self.name!r}: the longest clip for {split} has {longest} frames, and the loss skips the "
                f"first {context_len}.\n"
                f"  Set dataset.context_len to {longest - 1} or less, or use longer files."
            )

    @property
    def clipped(self) -> dict[Path, int]:
        """Files with samples above full scale, and how many were clipped in the clips that have been read so far.

        A converted file has all its clipped samples here, if it is this object that converted it.
        """
        parts = zip(self._sources, self._first, self._first[1:], strict=False)
        counts = {source.path: int(self._clipped[first:last].sum()) for source, first, last in parts}
        return {path: count for path, count in counts.items() if count} | self._clipped_in_conversion

    def describe(self, clip_index: int) -> tuple[Path, int]:
        """The file that a clip comes from and its first frame there (at `spec.sample_rate`)."""
        file, start = self._locate(clip_index)
        return self._sources[file].path, start

    def _read(self, index: int) -> tuple[int, Int16[np.ndarray, "frames channels"], int]:
        """The file of a clip, its frames, and how many of their values were clipped."""
        file, start = self._locate(index)
        frames = min(self.sample_len, self._frames[file] - start)
        return file, *self._frames_of(file, start, frames)

    def _locate(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of dataset {self.name!r}: there are {len(self)} (0 to {len(self) - 1}).")
        # The last file whose first clip is <= index: files without clips share their successor's number.
        file = int(np.searchsorted(self._first, index, side="right")) - 1
        return file, int(index - self._first[file]) * self.sample_len

    def _note_clipped(self, file: int, index: int, clipped: int) -> None:
        first, last = self._first[file : file + 2]
        if not self._clipped[first:last].any():
            level = logging.INFO if self._clipped.any() else logging.WARNING
            _log.log(
                level,
                "dataset %r: %s exceeds full scale; %d samples of its clip at frame %d were clipped. The rest of the "
                "file is counted silently.",
                *(self.name, self._sources[file].path, clipped, self._locate(index)[1]),
            )
        self._clipped[index] = clipped

    def _check_rates(self, rate_from: Path | None) -> None:
        rate = self.spec.sample_rate
        like = next((source.path for source in self._sources if source.sample_rate == rate), rate_from)
        for source in self._sources:
            if source.sample_rate != rate and self._resampler is None:
                raise DataError(
                    f"dataset {self.name!r}: {source.path} has {source.sample_rate} Hz, but {like or 'the spec'} has "
                    f"{rate} Hz.\n"
                    "  Set dataset.sample_rate to the rate to convert all files to, or remove the files of one rate."
                )

    def _at_rate(self, source: AudioInfo) -> Path:
        rate = self.spec.sample_rate
        if source.sample_rate == rate or self._resampler is None:
            return source.path
        folder = self._cache_folder or source.path.parent
        stat = source.path.stat()
        # A changed source or another engine gives another name, so a stale copy is never read.
        made = f"{self._resampler}|{self.requantize}|{_CONVERSION}"
        key = f"{source.path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}|{made}"
        digest = hashlib.sha256(key.encode()).hexdigest()[:16]
        copy = folder / ".cache-resampled" / str(rate) / f"{source.path.stem}-{digest}.wav"
        if not copy.exists():
            pcm, before = read_pcm(source.path, requantize=self.requantize)
            samples = pcm.astype(np.float32) / np.float32(32768)
            converted, after = float_to_pcm(resample(samples, source.sample_rate, rate, self._resampler))
            if before + after:
                self._clipped_in_conversion[source.path] = before + after
            try:
                copy.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise AudioError(
                    f"{copy.parent}: cannot keep files converted to {rate} Hz ({error.strerror}).\n"
                    "  Make the data folder writable, or convert the files beforehand and set dataset.sample_rate=null."
                ) from error
            write_pcm(copy, converted, rate)
        return copy

    def _no_clips(self) -> DataError:
        longest = max(zip(self._frames, self._sources, strict=True), key=lambda pair: pair[0], default=None)
        if longest is None:
            return DataError(f"dataset {self.name!r}: no audio files were given.")
        if not longest[0]:
            return DataError(
                f"dataset {self.name!r}: none of {len(self._sources)} files has any audio; {longest[1].path} has 0 "
                "frames.\n  Put files with audio there, or make these again."
            )
        return DataError(
            f"dataset {self.name!r}: none of {len(self._sources)} files has sample_len={self.sample_len} frames; the "
            f"longest, {longest[1].path}, has {longest[0]}.\n"
            f"  Set dataset.sample_len to {longest[0]} or less, or keep short clips with dataset.drop_last=false."
        )
