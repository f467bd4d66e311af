"""Lanes: the order of clips for training that carries its state from clip to clip (`train.carry_state`).

Row i of every batch is a lane. It plays one track after another, clip by clip, so that its next clip begins where the
last one ended. All lanes take their tracks from one queue, in which every track comes once a pass, shuffled anew for
each; a lane that ends a track takes the next one in the same step, whatever pass it belongs to. So no lane ever
waits, nothing is left out at the end of a pass, and every step has a clip for every lane.
"""

import zlib
from typing import ClassVar

import numpy as np
from jaxtyping import Int64

from stereo_sashimi.data.clip_sampler import EpochSampler, SamplerError

Indices = Int64[np.ndarray, "tracks"]


class Lanes:
    """The walk of `n_lanes` lanes, a function of its arguments alone; it only goes forward.

    - `first`, `counts`: (tracks,) index of the first clip of each track, and how many it has, at least 1.

    `step` is the number of steps walked. No clip comes twice in one step.
    """

    def __init__(self, first: Indices, counts: Indices, n_lanes: int, seed: int) -> None:
        self.first, self.counts, self.n_lanes, self.seed = first, counts, n_lanes, seed
        self.step = 0
        self._pass = 0
        self._queue: list[int] = []
        # Tracks taken last: lanes that begin in the same step must not play the same one side by side.
        self._recent: list[int] = []
        self._clip = np.zeros(n_lanes, dtype=np.int64)
        self._left = np.zeros(n_lanes, dtype=np.int64)

    def advance(self, n_steps: int) -> Int64[np.ndarray, "steps lanes"]:
        """Clip indices of the next `n_steps` steps."""
        grid = np.empty((n_steps, self.n_lanes), dtype=np.int64)
        done = 0
        while done < n_steps:
            for lane in np.flatnonzero(self._left == 0):
                track = self._next_track()
                self._clip[lane], self._left[lane] = self.first[track], self.counts[track]
            # As far as no lane ends.
            run = min(int(self._left.min()), n_steps - done)
            grid[done : done + run] = self._clip + np.arange(run)[:, None]
            self._clip += run
            self._left -= run
            done += run
        self.step += n_steps
        return grid

    def _next_track(self) -> int:
        if not self._queue:
            self._queue = self._shuffled()[::-1]
            self._pass += 1
        track = self._queue.pop()
        self._recent = [*self._recent, track][-(self.n_lanes - 1) :] if self.n_lanes > 1 else []
        return track

    def _shuffled(self) -> list[int]:
        """The tracks of a pass, such that any `n_lanes` of the queue that follow each other are different."""
        order: list[int] = np.random.default_rng([self.seed, self._pass]).permutation(len(self.first)).tolist()
        for i in range(len(self._recent)):
            # As there are at least as many tracks as lanes, one is left that was not taken lately.
            chosen = next(k for k in range(i, len(order)) if order[k] not in self._recent[i:])
            order.insert(i, order.pop(chosen))
        return order


class LaneSampler(EpochSampler):
    """Epoch e walks the e-th run of `n_steps` steps of all lanes, from the clips where epoch e - 1 stopped.

    - `first`, `counts`: as in Lanes.
    - `batch_size`: lanes of one process. Rank r has every world_size-th lane from r on, so that the lanes of all ranks
      are those of one process with the larger batch.
    - `chunk_size`: clips in one epoch over all ranks (`train.train_chunk_size`), up to a whole step; None, or more than
      there are: as many as there are, which is a pass on average.
    - `seed`: of the shuffled tracks.
    - `limit`: steps of an epoch that the trainer takes of it (`trainer.limit_train_batches`); the next epoch goes on
      behind these. None: all.

    Raises SamplerError if there are fewer tracks than lanes: two lanes would play the same clips side by side.
    """

    REMEDIES: ClassVar[dict[str, str]] = {
        "n_lanes": "Resume with the same loader.batch_size and number of processes",
        "world_size": "Resume with the same number of processes (trainer.devices, trainer.num_nodes)",
        "n_examples": "Resume with the same files, dataset.sample_len and dataset.train_percentage",
        "tracks": "Resume with the same files, in lengths and order",
        "chunk_size": "Resume with the same train.train_chunk_size",
        "n_steps": "Resume with the same trainer.limit_train_batches",
    }

    def __init__(
        self,
        first: Indices,
        counts: Indices,
        batch_size: int,
        chunk_size: int | None,
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        limit: int | float | None = None,
    ) -> None:
        self.n_examples = int(counts.sum())
        super().__init__(seed, rank, world_size)
        self.first, self.counts = first, counts
        self.n_lanes = batch_size * world_size
        if len(first) < self.n_lanes:
            raise SamplerError(
                f"train.carry_state=true gives each row of a batch a track of its own, but there are {len(first)} "
                f"tracks for training and {self.n_lanes} rows (loader.batch_size={batch_size} x {world_size} "
                f"processes).\n  Set loader.batch_size={max(1, len(first) // world_size)} or less, use fewer "
                "processes, or cut the tracks into more files."
            )
        wanted = self.n_examples if chunk_size is None else min(chunk_size, self.n_examples)
        n_steps = -(-wanted // self.n_lanes)
        self.chunk_size = n_steps * self.n_lanes
        # What Lightning makes of its limit: a number of batches, or a share of them.
        share = int(n_steps * limit) if isinstance(limit, float) else limit
        self.n_steps = n_steps if share is None else max(1, min(n_steps, share))
        # One number for the lengths of all tracks.
        self.tracks = zlib.crc32(np.stack([first, counts]).tobytes())
        self._lanes: Lanes | None = None
        self._walked: tuple[tuple[int, int], Int64[np.ndarray, "clips"]] | None = None

    @property
    def n_chunks(self) -> int:
        """All epochs have the same length."""
        return 1

    def position_of(self, epoch: int) -> int:
        """Clips walked before an epoch."""
        return epoch * self.n_steps * self.n_lanes

    def chunk_length(self, epoch: int) -> int:
        """Clips in an epoch, over all ranks: the same number in each."""
        return self.chunk_size

    def order(self) -> Int64[np.ndarray, "clips"]:
        """Clip indices of the whole current epoch: all lanes of the first step, all of the second, .."""
        key = (self.seed, self.epoch)
        if self._walked is None or self._walked[0] != key:
            begin = self.epoch * self.n_steps
            lanes = self._lanes
            if lanes is None or lanes.step > begin or lanes.seed != self.seed:
                lanes = Lanes(self.first, self.counts, self.n_lanes, self.seed)
            lanes.advance(begin - lanes.step)
            grid = lanes.advance(self.n_steps)
            # What the trainer's limit leaves out is only there to be counted: the epoch behind this begins before it.
            grid = np.concatenate([grid, np.repeat(grid[-1:], self.chunk_size // self.n_lanes - self.n_steps, axis=0)])
            self._lanes, self._walked = lanes, (key, grid.ravel())
        return self._walked[1]
