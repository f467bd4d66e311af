"""Which clips an epoch walks through: consecutive chunks for training, one fixed draw for validation and test.

Orders are pure functions of (seed, epoch), so iterating twice gives the same indices twice and nothing depends on how
often a loader is restarted, on prefetching workers or on sanity checks. `datamodule.py` keeps the epoch.
"""

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64
from torch.utils.data import Sampler


@runtime_checkable
class _FitLoop(Protocol):
    """What `state_in_training` reads of `Trainer.fit_loop` (pytorch_lightning.loops)."""

    epoch_progress: Any
    epoch_loop: Any


class SamplerError(ValueError):
    """A sampler was given impossible sizes, or the state of another data set."""


class ChunkSampler(Sampler[int]):
    """Epoch e walks the e-th run of `chunk_size` consecutive clips in data set order; passes start over at the end.

    The last chunk of a pass is as short as it must be, so every clip comes exactly once in a pass.

    - `n_examples`: clips in the data set, at least 1.
    - `chunk_size`: clips in one epoch over all ranks (`train.train_chunk_size`); None, or more than there are: all.
    - `seed`, `shuffle`: shuffle inside the chunk, by (seed, epoch) only.
    - `rank`, `world_size`: this process and the number of processes. Rank r takes every world_size-th clip of the
      chunk's order from r on; a chunk that does not divide is padded with clips of its own beginning, because every
      process of a training must take the same number of steps.

    `len()` is the number of clips that this rank sees in the whole current epoch, also after `skip`.
    `epoch` counts the chunks walked; `outer_epoch` is the number by which the training loop calls that epoch. They
    differ after a run that stopped in mid-epoch (`max_steps`): the loop counts that epoch, but its clips are still due.
    """

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
        _check_sizes(n_examples, chunk_size, seed, rank, world_size, key="train.train_chunk_size")
        self.n_examples = n_examples
        self.chunk_size = n_examples if chunk_size is None else min(chunk_size, n_examples)
        self.seed = seed
        self.shuffle = shuffle
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self.outer_epoch = 0
        self.consumed = 0

    @property
    def n_chunks(self) -> int:
        """Epochs in one pass over the data set."""
        return -(-self.n_examples // self.chunk_size)

    @property
    def position(self) -> int:
        """Index of the first clip of the current epoch's chunk."""
        return self.epoch % self.n_chunks * self.chunk_size

    @property
    def padded_size(self) -> int:
        """Clips of the current epoch over all ranks, padding included."""
        return self.epoch_length(self.epoch) * self.world_size

    def epoch_length(self, epoch: int) -> int:
        """Clips that one rank sees in an epoch."""
        return -(-self.chunk_length(epoch) // self.world_size)

    def chunk_length(self, epoch: int) -> int:
        """Different clips in an epoch, over all ranks."""
        return min(self.chunk_size, self.n_examples - epoch % self.n_chunks * self.chunk_size)

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

    def order(self) -> Int64[np.ndarray, "clips"]:
        """Clip indices of the whole current epoch over all ranks, padding included."""
        indices = self.position + np.arange(self.chunk_length(self.epoch), dtype=np.int64)
        if self.shuffle:
            indices = np.random.default_rng([self.seed, self.epoch]).permutation(indices)
        return np.resize(indices, self.padded_size)

    def __iter__(self) -> Iterator[int]:
        return iter(self.order()[self.consumed :][self.rank :: self.world_size].tolist())

    def __len__(self) -> int:
        return self.epoch_length(self.epoch)

    def state_dict(self) -> dict[str, int]:
        """Plain numbers for a checkpoint; `consumed` counts clips of the current epoch over all ranks."""
        return {
            "epoch": self.epoch,
            "outer_epoch": self.outer_epoch,
            "position": self.position,
            "consumed": self.consumed,
            "seed": self.seed,
            "n_examples": self.n_examples,
            "chunk_size": self.chunk_size,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go where a checkpoint was; its seed is taken over, so that an order once begun is finished.

        Raises SamplerError if the data set or the chunk size has another size than when the state was saved.
        """
        remedy = {
            "n_examples": "Resume with the same files, dataset.sample_len and dataset.train_percentage",
            "chunk_size": "Resume with the same train.train_chunk_size",
        }
        for key, advice in remedy.items():
            if state[key] != getattr(self, key):
                raise SamplerError(
                    f"the checkpoint's training data had {key}={state[key]}, this data set has {getattr(self, key)}.\n"
                    f"  {advice}, or start a new run from the weights."
                )
        self.seed = state["seed"]
        self.epoch = state["epoch"]
        self.outer_epoch = state["outer_epoch"]
        # All is all, however many clips the ranks of then and of now are padded with.
        done = state["consumed"] >= self.chunk_length(self.epoch)
        self.skip(self.padded_size if done else state["consumed"])


def state_in_training(sampler: ChunkSampler, loop: _FitLoop, global_batch: int) -> dict[str, int]:
    """State of `sampler` after the batches that Lightning's fit loop has trained on, `global_batch` clips each.

    Workers fetch ahead, so the loop's counters say what was consumed, not the sampler's iterator. Counters rise in
    the order ready, started, processed, completed; hooks that save checkpoints run in between.
    """
    epoch, batch = loop.epoch_progress.current, loop.epoch_loop.batch_progress.current
    state = sampler.state_dict() | {"outer_epoch": epoch.processed}
    if epoch.ready > epoch.started:
        # on_train_epoch_start: the batch counters are still those of the epoch before.
        return state | {"consumed": 0}
    epoch_counted = epoch.processed == epoch.started
    finished = loop.epoch_loop.batch_progress.is_last_batch and (epoch_counted or batch.ready == batch.processed)
    if not finished:
        return state | {"consumed": min(batch.processed * global_batch, sampler.padded_size)}
    validated = not epoch_counted and batch.completed == batch.processed
    run_ended = epoch_counted and epoch.completed == epoch.processed
    if validated or run_ended:
        # Resuming from either, Lightning enters one more epoch without training in it: it must find nothing left.
        return state | {"consumed": sampler.padded_size}
    # What is left: on_train_epoch_end, or on_train_batch_end of the last batch; Lightning then counts the epoch itself.
    outer = epoch.processed + (not epoch_counted)
    if not epoch_counted and sampler.epoch_length(sampler.epoch) < sampler.epoch_length(sampler.epoch + 1):
        # Lightning would take the batches of this short epoch for batches of the next: give it an empty one first.
        return state | {"outer_epoch": outer, "consumed": sampler.padded_size}
    return state | {
        "epoch": sampler.epoch + 1,
        "outer_epoch": outer,
        "position": (sampler.epoch + 1) % sampler.n_chunks * sampler.chunk_size,
        "consumed": 0,
    }


class FixedDrawSampler(Sampler[int]):
    """The same `chunk_size` clips in every epoch: a seeded draw without replacement over the whole data set, sorted.

    Metrics of different epochs then measure the same clips. Ranks share the draw without padding: shards may differ
    by one clip, nothing is lost and nothing counted twice. Arguments as ChunkSampler's.
    """

    def __init__(self, n_examples: int, chunk_size: int | None, seed: int, rank: int = 0, world_size: int = 1) -> None:
        _check_sizes(n_examples, chunk_size, seed, rank, world_size, key="train.val_chunk_size")
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


def _check_sizes(n_examples: int, chunk_size: int | None, seed: int, rank: int, world_size: int, *, key: str) -> None:
    if n_examples < 1:
        raise SamplerError(f"a sampler needs at least 1 clip; got {n_examples}.")
    if chunk_size is not None and chunk_size < 1:
        raise SamplerError(f"{key} must be at least 1, or null for all clips; got {chunk_size}.")
    if seed < 0:
        raise SamplerError(f"train.seed must be 0 or more; got {seed}.")
    if not 0 <= rank < world_size:
        raise SamplerError(f"rank must be 0 to world_size - 1 = {world_size - 1}; got {rank}.")
