"""Which clips an epoch walks through: consecutive chunks for training, one fixed draw for validation and test.

Orders are pure functions of (seed, epoch), so iterating twice gives the same indices twice and nothing depends on how
often a loader is restarted, on prefetching workers or on sanity checks. `datamodule.py` keeps the epoch. Training that
carries its state from clip to clip walks in another order, see `track_sampler.py`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Int64
from torch.utils.data import Sampler


class SamplerError(ValueError):
    """A sampler has fewer clips or tracks than processes or rows, or was given the state of another data set."""


class EpochSampler(Sampler[int], ABC):
    """Epochs of clip indices that go on where the one before stopped; `order` says which.

    - `seed`: 0 or more. `rank`, `world_size`: rank r takes every world_size-th clip of the epoch's order from r on.

    `len()` is the number of clips that this rank sees in the whole current epoch, also after `skip`.
    `epoch` counts the epochs walked; `outer_epoch` is the number by which the training loop calls that epoch. They
    differ after a run that stopped in mid-epoch (`max_steps`): the loop counts that epoch, but its clips are still due.
    """

    # What a state must share with the sampler that takes it over, and what to do where it does not.
    REMEDIES: ClassVar[dict[str, str]]

    def __init__(self, seed: int, rank: int, world_size: int) -> None:
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self.outer_epoch = 0
        self.consumed = 0

    @property
    @abstractmethod
    def n_chunks(self) -> int:
        """Epochs until their lengths repeat."""

    @abstractmethod
    def position_of(self, epoch: int) -> int:
        """Where an epoch begins, in clips."""

    @abstractmethod
    def chunk_length(self, epoch: int) -> int:
        """Clips in an epoch over all ranks, without padding."""

    @abstractmethod
    def order(self) -> Int64[np.ndarray, "clips"]:
        """Clip indices of the whole current epoch over all ranks, padding included."""

    @property
    def position(self) -> int:
        """Where the current epoch begins, in clips."""
        return self.position_of(self.epoch)

    @property
    def padded_size(self) -> int:
        """Clips of the current epoch over all ranks, padding included."""
        return self.epoch_length(self.epoch) * self.world_size

    def epoch_length(self, epoch: int) -> int:
        """Clips that one rank sees in an epoch."""
        return -(-self.chunk_length(epoch) // self.world_size)

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of the epoch that the training loop calls `epoch` (Lightning calls this before each epoch).

        Nothing changes if it is the current one: what was skipped stays skipped.
        """
        if epoch != self.outer_epoch:
            self.epoch += epoch - self.outer_epoch
            self.outer_epoch = epoch
            self.consumed = 0

    def skip(self, n_consumed: int) -> None:
        """Leave out the first `n_consumed` clips of this epoch, counted over all ranks from the epoch's start."""
        if not 0 <= n_consumed <= self.padded_size:
            raise SamplerError(
                f"cannot skip {n_consumed} clips: epoch {self.epoch} has {self.padded_size}. "
                "The checkpoint belongs to another train.train_chunk_size or data set."
            )
        self.consumed = n_consumed

    def __iter__(self) -> Iterator[int]:
        return iter(self.order()[self.consumed :][self.rank :: self.world_size].tolist())

    def __len__(self) -> int:
        return self.epoch_length(self.epoch)

    def state_dict(self) -> dict[str, int]:
        """Plain numbers for a checkpoint; `consumed` counts clips of the current epoch over all ranks."""
        state = {name: getattr(self, name) for name in ("epoch", "outer_epoch", "position", "consumed", "seed")}
        return state | {name: getattr(self, name) for name in self.REMEDIES}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go where a checkpoint was; its seed is taken over, so that an order once begun is finished.

        Raises SamplerError if the data set or the chunks are others than when the state was saved.
        """
        if (carried := "n_lanes" in state) != ("n_lanes" in self.REMEDIES):
            before, now = ("true", "false") if carried else ("false", "true")
            raise SamplerError(
                f"the checkpoint was taken with train.carry_state={before}; this run has {now}.\n"
                f"  Resume with train.carry_state={before}, or start a new run from the weights."
            )
        for key, advice in self.REMEDIES.items():
            if state.get(key) != getattr(self, key):
                raise SamplerError(
                    f"the checkpoint's training data had {key}={state.get(key)}, this data set has "
                    f"{getattr(self, key)}.\n"
                    f"  {advice}, or start a new run from the weights."
                )
        self.seed = state["seed"]
        self.epoch = state["epoch"]
        self.outer_epoch = state["outer_epoch"]
        # All is all, however many clips the ranks of then and of now are padded with.
        done = state["consumed"] >= self.chunk_length(self.epoch)
        self.skip(self.padded_size if done else state["consumed"])


class ChunkSampler(EpochSampler):
    """Epoch e walks the e-th run of `chunk_size` consecutive clips in data set order; passes start over at the end.

    The last chunk of a pass is as short as it must be, so every clip comes exactly once in a pass.

    - `n_examples`: clips in the data set, at least 1.
    - `chunk_size`: clips in one epoch over all ranks (`train.train_chunk_size`); None, or more than there are: all.
    - `seed`, `shuffle`: shuffle inside the chunk, by (seed, epoch) only.
    - `rank`, `world_size`: this process and the number of processes. A chunk that does not divide is padded with clips
      of its own beginning, because every process of a training must take the same number of steps.
    """

    REMEDIES: ClassVar[dict[str, str]] = {
        "n_examples": "Resume with the same files, dataset.sample_len and dataset.train_percentage",
        "chunk_size": "Resume with the same train.train_chunk_size",
    }

    def __init__(
        self,
        n_examples: int,
        chunk_size: int | None,
        *,
        seed: int,
        shuffle: bool,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__(seed, rank, world_size)
        self.n_examples = n_examples
        self.chunk_size = n_examples if chunk_size is None else min(chunk_size, n_examples)
        self.shuffle = shuffle

    @property
    def n_chunks(self) -> int:
        """Epochs in one pass over the data set."""
        return -(-self.n_examples // self.chunk_size)

    def position_of(self, epoch: int) -> int:
        """Index of the first clip of an epoch's chunk."""
        return epoch % self.n_chunks * self.chunk_size

    def chunk_length(self, epoch: int) -> int:
        """Different clips in an epoch, over all ranks."""
        return min(self.chunk_size, self.n_examples - self.position_of(epoch))

    def order(self) -> Int64[np.ndarray, "clips"]:
        """Clip indices of the whole current epoch over all ranks, padding included."""
        indices = self.position + np.arange(self.chunk_length(self.epoch), dtype=np.int64)
        if self.shuffle:
            indices = np.random.default_rng([self.seed, self.epoch]).permutation(indices)
        return np.resize(indices, self.padded_size)


class FixedDrawSampler(Sampler[int]):
    """The same `chunk_size` clips in every epoch: a seeded draw without replacement over the whole data set, sorted.

    Metrics of different epochs then measure the same clips. Ranks share the draw without padding: shards may differ
    by one clip, nothing is lost and nothing counted twice. Arguments as ChunkSampler's.
    """

    def __init__(self, n_examples: int, chunk_size: int | None, seed: int, rank: int = 0, world_size: int = 1) -> None:
        self.size = n_examples if chunk_size is None else min(chunk_size, n_examples)
        self.world_size = world_size
        draw = np.random.default_rng(seed).choice(n_examples, size=self.size, replace=False, shuffle=False)
        self.indices: list[int] = np.sort(draw)[rank::world_size].tolist()

    def check_shards(self, split: str) -> None:
        """Raise SamplerError, on every rank alike, if a rank has no clip: Lightning would let it skip the totals."""
        if self.size < self.world_size:
            raise SamplerError(
                f"the {split} split gives {self.size} clips for {self.world_size} processes; each needs one.\n"
                "  Use fewer processes (trainer.devices, trainer.num_nodes), a larger train.val_chunk_size, or shorter "
                "clips (dataset.sample_len)."
            )

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)
