"""AudioDataModule: a folder of audio as Lightning's train, validation and test loaders.

Files become clips in `dataset.py`, their order is in `clip_sampler.py`. `is_stereo` enters the program here, goes
through `audio.channels.n_channels` and leaves as `d_input`; nothing else reads it.
"""

from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from stereo_sashimi.audio.channels import n_channels
from stereo_sashimi.audio.io import probe
from stereo_sashimi.audio.resample import METHODS
from stereo_sashimi.data import loader as loading
from stereo_sashimi.data.clip_sampler import ChunkSampler, EpochSampler, FixedDrawSampler, SamplerError
from stereo_sashimi.data.dataset import AudioFolder, collate
from stereo_sashimi.data.split import RULES, SPLITS, DataError, FolderSplit, split_folder
from stereo_sashimi.data.track_sampler import LaneSampler
from stereo_sashimi.spec import AudioSpec


class AudioDataModule(pl.LightningDataModule):
    """Audio files of a folder as batches of codes (`Batch`).

    - `name`: the data set in messages. `path`: its folder, relative to `data_dir` unless absolute.
    - `is_stereo`: true: 2 channels; false: 1, stereo files are mixed down. `upmix`: true lets mono files into a
      stereo data set.
    - `bits` (8, 16), `quantization` (linear, mu-law), `normalize` (none, peak, minmax): see AudioSpec.
    - `sample_len`: frames in a clip. `warm_up`: frames in front of it that come along, for adaptive experts; needs
      `normalize` none. Training with `carry_state` does without. `drop_last`: leave out the short rest of each file.
    - `train_percentage`, `split` (order, hash), `split_seed`: how files are split that no subfolder train/ splits, see
      `split_folder`. `exclude`: files to leave out, relative to the folder.
    - `prepare`: the command that makes the folder, for messages.
    - `context_len`: the loss skips the first n frames (below `sample_len`); `pad_len`: n start codes come before the
      inputs. Both are only kept here; the task uses them.
    - `sample_rate`: None, all files must agree; or the rate in Hz that files are converted to by `resampler`.
    - `requantize`: true lets 24 and 32 bit files in, rounded to 16 bits.
    - `batch_size`, `num_workers`, `pin_memory` (only with a CUDA device), `persistent_workers`: as DataLoader's.
    - `train_chunk_size`: clips that one training epoch walks through, over all processes, the next epoch going on
      where it stopped; `val_chunk_size`: clips in a fixed draw. None: all. The test split is always whole.
    - `carry_state`: true: each row of the training batches plays whole tracks, clip after clip, see `track_sampler.py`;
      validation and test keep their draws.
    - `seed`: of the order in training and of the draws.

    `d_input` is the number of channels (1 or 2), `n_levels` that of codes (2**bits).
    Raises ValueError, naming the key, for values outside these ranges.
    """

    name: str

    def __init__(
        self,
        *,
        name: str,
        path: str,
        data_dir: str = ".",
        is_stereo: bool = False,
        bits: int = 16,
        quantization: str = "linear",
        normalize: str = "none",
        sample_len: int = 12288,
        warm_up: int = 0,
        train_percentage: float = 0.88,
        split: str = "order",
        split_seed: int = 0,
        exclude: Sequence[str] = (),
        prepare: str | None = None,
        drop_last: bool = True,
        context_len: int | None = None,
        pad_len: int | None = None,
        sample_rate: int | None = None,
        resampler: str = "soxr",
        upmix: bool = False,
        requantize: bool = False,
        batch_size: int = 1,
        num_workers: int = 0,
        pin_memory: bool = False,
        persistent_workers: bool = False,
        train_chunk_size: int | None = None,
        val_chunk_size: int | None = None,
        carry_state: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for key, value, least in (
            ("dataset.sample_len", sample_len, 1),
            ("dataset.warm_up", warm_up, 0),
            ("dataset.context_len", context_len, 0),
            ("dataset.pad_len", pad_len, 0),
            ("loader.batch_size", batch_size, 1),
            ("loader.num_workers", num_workers, 0),
            ("train.train_chunk_size", train_chunk_size, 1),
            ("train.val_chunk_size", val_chunk_size, 1),
            ("train.seed", seed, 0),
        ):
            if value is not None and value < least:
                raise DataError(f"{key} must be {least} or more; got {value}.")
        if context_len is not None and context_len >= sample_len:
            raise DataError(
                f"dataset.context_len must be below dataset.sample_len={sample_len}, or no frame is left for the "
                f"loss; got {context_len}."
            )
        if warm_up and normalize != "none":
            raise DataError(
                f"dataset.warm_up={warm_up} reads on from the frames in front of a clip, but dataset.normalize="
                f"{normalize} scales each clip by itself. Set dataset.normalize=none."
            )
        if carry_state and pad_len:
            raise DataError(
                f"dataset.pad_len={pad_len} puts start codes in front of clips, but with train.carry_state=true a clip "
                "goes on where the one before it ended. Set dataset.pad_len=null, or train.carry_state=false."
            )
        if not 0 < train_percentage < 1:
            raise DataError(f"dataset.train_percentage must be between 0 and 1; got {train_percentage}.")
        for key, word, allowed in (("resampler", resampler, METHODS), ("split", split, RULES)):
            if word not in allowed:
                raise DataError(f"dataset.{key} must be one of {', '.join(allowed)}; got {word!r}.")
        if bits not in (8, 16):
            raise DataError(
                f"dataset.bits must be 8 or 16, the bits of one code; got {bits}. Files of 24 and 32 bits are "
                "rounded to 16 with dataset.requantize=true."
            )
        if persistent_workers and num_workers == 0:
            raise DataError("loader.persistent_workers=true needs loader.num_workers of 1 or more; got 0.")

        self.name = name
        self.folder = Path(data_dir) / path
        self.sample_len, self.warm_up = sample_len, warm_up
        self.context_len, self.pad_len = context_len, pad_len
        self._files = partial(
            AudioFolder, cache_folder=self.folder, drop_last=drop_last, upmix=upmix, requantize=requantize, name=name,
            resampler=resampler if sample_rate else None,
        )  # fmt: skip
        self._split_folder = partial(
            split_folder, self.folder, train_percentage, name,
            rule=split, seed=split_seed, exclude=exclude, prepare=prepare,
        )  # fmt: skip
        self.batch_size = batch_size
        self.num_workers, self.persistent_workers = num_workers, persistent_workers
        self.pin_memory = pin_memory
        self.train_chunk_size, self.val_chunk_size = train_chunk_size, val_chunk_size
        self.carry_state = carry_state
        self.seed = seed
        self.datasets: dict[str, AudioFolder] = {}

        # Everything but the rate is known now, and checked now.
        self._target_rate = sample_rate
        self._format: dict[str, Any] = {"bits": bits, "quantization": quantization, "normalize": normalize}
        self.d_input = n_channels(is_stereo)
        self.n_levels = AudioSpec(1 if sample_rate is None else sample_rate, self.d_input, **self._format).n_levels
        self._spec: AudioSpec | None = None
        self._sampler: EpochSampler | None = None
        self._sampler_trainer: pl.Trainer | None = None
        self._resumed: dict[str, int] | None = None
        self._resumed_at: tuple[int, int] | None = None

    @property
    def spec(self) -> AudioSpec:
        """The format of the codes. Without `sample_rate` the header of the first file is read to know the rate."""
        if self._spec is None:
            rate = self._target_rate or probe(self.split.files["train"][0]).sample_rate
            self._spec = AudioSpec(rate, self.d_input, **self._format)
        return self._spec

    @cached_property
    def split(self) -> FolderSplit:
        """The files of train, valid and test."""
        return self._split_folder()

    def setup(self, stage: str | None = None) -> None:
        """Read the headers of the splits that `stage` needs: fit, validate, test or None (all)."""
        wanted = {"fit": ("train", "valid"), "validate": ("valid",), "test": ("test",)}.get(stage or "", SPLITS)
        for split in wanted:
            if split not in self.datasets:
                self.datasets[split] = self._folder(split)
                self.datasets[split].check_context(self.context_len or 0, split)
        if "train" in wanted:
            self._set_up_sampler()

    def train_dataloader(self) -> loading.ResumableLoader:
        """Batches of the current chunk; after a resume in mid-epoch, what is left of it."""
        sampler = self._sampler
        if sampler is None:
            raise DataError("AudioDataModule.train_dataloader was called before setup('fit').")
        if self.trainer is not None:
            loop: Any = self.trainer.fit_loop
            # The loop calls set_epoch before each epoch, but asks for the first loader, and its length, before that.
            # A restored sampler stands right already, whereas the loop's own counters are not yet settled.
            if not (loop.restarting and self._resumed):
                sampler.set_epoch(loop.epoch_progress.current.processed)
            elif self._resumed_at is None:
                self._resumed_at = self._counters()
        data = self.datasets["train"]
        begins = data.tracks[0] if self.carry_state else None
        return loading.ResumableLoader(data, sampler=sampler, **self._loader_options("train", begins))

    def val_dataloader(self) -> loading.Loader:
        """Batches of a draw of `val_chunk_size` validation clips, the same in every epoch."""
        return self._evaluation_loader("valid", self.val_chunk_size)

    def test_dataloader(self) -> loading.Loader:
        """Batches of all test clips."""
        return self._evaluation_loader("test", None)

    def state_dict(self) -> dict[str, Any]:
        """Where training stands in its data: plain numbers. Empty before `setup("fit")`."""
        if self._sampler is None:
            return {}
        state = self._sampler.state_dict()
        if self.trainer is not None:
            if self._resumed is not None and self._counters() == self._resumed_at:
                # Nothing was trained since the resume; the counters describe the run before it.
                state = self._resumed
            else:
                state = loading.state_in_training(self._sampler, self.trainer.fit_loop, self._global_batch)
        return {**state, "global_batch": self._global_batch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken. Raises SamplerError if the data or its chunks are not the same."""
        if not state_dict:
            return
        if self._sampler is None:
            self._resumed = state_dict
            return
        self._sampler.load_state_dict(state_dict)
        inside = 0 < state_dict["consumed"] < self._sampler.chunk_length(state_dict["epoch"])
        if inside and state_dict["global_batch"] != self._global_batch:
            raise SamplerError(
                f"the checkpoint was taken inside an epoch with batches of {state_dict['global_batch']} clips over all "
                f"processes; this run has {self._global_batch}.\n"
                "  Resume with the same loader.batch_size x processes, or from a checkpoint of an epoch's end."
            )
        self._resumed, self._resumed_at = state_dict, None

    @property
    def _ranks(self) -> tuple[int, int]:
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    @property
    def _global_batch(self) -> int:
        return self.batch_size * self._ranks[1]

    def _counters(self) -> tuple[int, int]:
        loop: Any = self.trainer.fit_loop  # type: ignore[union-attr]
        return loop.epoch_loop.batch_progress.total.processed, loop.epoch_progress.current.processed

    def _folder(self, split: str) -> AudioFolder:
        files = self.split.files
        warm_up = self._warm_up(split)
        return self._files(files[split], self.spec, self.sample_len, warm_up=warm_up, rate_from=files["train"][0])

    def _warm_up(self, split: str) -> int:
        """What is carried over has been through all of the track."""
        return 0 if self.carry_state and split == "train" else self.warm_up

    def _set_up_sampler(self) -> None:
        # A trainer that fits again goes on; another trainer begins at the beginning, or is given a state after this.
        if self._sampler is None or self._sampler_trainer is not self.trainer:
            # Only without a trainer can a state have come before setup.
            before, self._resumed = self._resumed if self.trainer is None else None, None
            self._sampler_trainer = self.trainer
            first, counts = self.datasets["train"].tracks
            rank, world_size = self._ranks
            processes = {"seed": self.seed, "rank": rank, "world_size": world_size}
            if self.carry_state:
                limit = None if self.trainer is None else self.trainer.limit_train_batches
                sizes = self.batch_size, self.train_chunk_size
                self._sampler = LaneSampler(first, counts, *sizes, limit=limit, **processes)
            else:
                self._sampler = ChunkSampler(int(counts.sum()), self.train_chunk_size, shuffle=True, **processes)
            self.load_state_dict(before or {})
        if self.trainer is not None:
            loading.reload_for_short_chunks(self.trainer, self._sampler, self.batch_size)

    def _loader_options(self, split: str, begins: np.ndarray | None = None) -> dict[str, Any]:
        return {
            "batch_size": self.batch_size,
            "num_workers": self.num_workers,
            "pin_memory": self.pin_memory and torch.cuda.is_available(),
            "persistent_workers": self.persistent_workers,
            "collate_fn": partial(
                collate, start_code=self.spec.start_code, begins=begins, warm_up=self._warm_up(split)
            ),
            "worker_init_fn": loading.obey_parent,
            # The loader's own seeds its workers, so that iterating does not draw from the global one.
            "generator": torch.Generator().manual_seed(self.seed + self._ranks[0]),
        }

    def _evaluation_loader(self, split: str, chunk_size: int | None) -> loading.Loader:
        data = self.datasets[split]
        rank, world_size = self._ranks
        sampler = FixedDrawSampler(len(data), chunk_size, self.seed, rank, world_size)
        sampler.check_shards(split)
        return loading.Loader(data, sampler=sampler, **self._loader_options(split))
