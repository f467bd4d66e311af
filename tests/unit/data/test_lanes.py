"""Lanes: whole tracks in the rows of batches, every clip once a pass, ranks, epochs, resuming, what is refused."""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stereo_sashimi.audio import write_pcm
from stereo_sashimi.data.clip_sampler import ChunkSampler, SamplerError
from stereo_sashimi.data.datamodule import AudioDataModule
from stereo_sashimi.data.track_sampler import Lanes, LaneSampler

RATE = 8000


def tracks(*counts: int) -> tuple[np.ndarray, np.ndarray]:
    """First clip and number of clips of tracks of these lengths."""
    return np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64), np.array(counts, dtype=np.int64)


def sampler(counts=(5, 2, 7, 3, 1), batch_size=2, chunk=None, **options) -> LaneSampler:
    return LaneSampler(*tracks(*counts), batch_size, chunk, **{"seed": 0} | options)


def plays(grid: np.ndarray, first: np.ndarray) -> list[list[int]]:
    """What the lanes play: each start of a track with the clips that follow it in its lane, lane by lane."""
    found: list[list[int]] = []
    for lane in grid.T.tolist():
        for clip in lane:
            if clip in first:
                found.append([])
            found[-1].append(clip)
    return found


COUNTS = st.lists(st.integers(1, 9), min_size=1, max_size=8)


@given(counts=COUNTS, data=st.data(), seed=st.integers(0, 3))
@settings(deadline=None, max_examples=60)
def test_lanes_play_whole_tracks_each_once_a_pass(counts, data, seed):
    n_lanes = data.draw(st.integers(1, len(counts)))
    first, lengths = tracks(*counts)
    n_passes = 3
    # Long enough for every lane to be behind the third pass.
    grid = Lanes(first, lengths, n_lanes, seed).advance(n_passes * sum(counts) + max(counts))
    whole = {int(begin): list(range(begin, begin + count)) for begin, count in zip(first, lengths, strict=True)}
    begun = []
    for lane in range(n_lanes):
        played = plays(grid[:, lane : lane + 1], first)
        # The last track of each lane is still playing.
        assert all(clips == whole[clips[0]] for clips in played[:-1])
        assert played[-1] == whole[played[-1][0]][: len(played[-1])]
        steps = np.cumsum([0, *map(len, played[:-1])])
        begun += [(int(step), lane, clips[0]) for step, clips in zip(steps, played, strict=True)]
    # In the order in which lanes took them from the queue.
    queue = [track for _, _, track in sorted(begun)]
    for number in range(n_passes):
        assert sorted(queue[number * len(counts) : (number + 1) * len(counts)]) == sorted(whole)
    # No step has a clip twice, so no two lanes ever go side by side through one track.
    assert all(len(set(row)) == n_lanes for row in grid.tolist())


def test_passes_and_seeds_are_shuffled_anew():
    def order(seed):
        return [clips[0] for clips in plays(Lanes(*tracks(*[2] * 12), 1, seed).advance(72), tracks(*[2] * 12)[0])]

    passes = [order(0)[i : i + 12] for i in (0, 12, 24)]
    assert passes[0] != passes[1] != passes[2]
    assert passes[0] != sorted(passes[0])
    assert order(1) != order(0) == order(0)


@given(chunk=st.one_of(st.none(), st.integers(1, 30)), world_size=st.integers(1, 2), batch_size=st.integers(1, 2))
@settings(deadline=None, max_examples=40)
def test_epochs_join_and_ranks_are_lanes_of_their_own(chunk, world_size, batch_size):
    counts = (5, 2, 7, 3, 1)
    n_lanes, n_clips = world_size * batch_size, sum(counts)
    walks = [sampler(counts, batch_size, chunk, rank=r, world_size=world_size) for r in range(world_size)]
    n_steps = -(-min(chunk or n_clips, n_clips) // n_lanes)
    epochs = 4
    straight = Lanes(*tracks(*counts), n_lanes, 0).advance(epochs * n_steps)
    for epoch in range(epochs):
        expected = straight[epoch * n_steps : (epoch + 1) * n_steps]
        for rank, walk in enumerate(walks):
            walk.set_epoch(epoch)
            assert len(walk) == n_steps * batch_size
            for _ in range(2):
                clips = np.array(list(walk)).reshape(n_steps, batch_size)
                assert np.array_equal(clips, expected[:, rank::world_size])


@given(data=st.data())
@settings(deadline=None, max_examples=40)
def test_a_resume_in_mid_epoch_walks_what_is_left(data):
    straight, saved = sampler(chunk=8), sampler(chunk=8)
    epoch, step = data.draw(st.integers(0, 5)), data.draw(st.integers(0, 4))
    for walk in (straight, saved):
        walk.set_epoch(epoch)
    saved.skip(step * 2)
    resumed = sampler(chunk=8, seed=9)
    resumed.load_state_dict(saved.state_dict())
    assert resumed.state_dict() == saved.state_dict()
    assert list(resumed) == list(straight)[step * 2 :]
    for walk in (straight, resumed):
        walk.set_epoch(epoch + 1)
    assert list(resumed) == list(straight)


@pytest.mark.parametrize(("limit", "taken"), [(3, 3), (0.5, 4), (1.0, 9), (50, 9), (None, 9)])
def test_an_epoch_that_the_trainer_cuts_short_goes_on_where_it_was_cut(limit, taken):
    walk, straight = sampler(limit=limit), Lanes(*tracks(5, 2, 7, 3, 1), 2, 0)
    for epoch in range(4):
        walk.set_epoch(epoch)
        # Lightning counts all of it before it takes its share.
        assert len(walk) == 9 * 2
        assert walk.position == epoch * taken * 2
        assert np.array_equal(walk.order().reshape(9, 2)[:taken], straight.advance(taken))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"counts": (5, 2, 7, 4)}, r"tracks=\d+, this data set has \d+\."),
        ({"counts": (5, 2, 7, 3, 2)}, "n_examples=18, this data set has 19"),
        ({"counts": (2, 5, 7, 3, 1)}, r"tracks=\d+, this data set has \d+\.\n  Resume with the same files, in lengths"),
        ({"batch_size": 1}, r"n_lanes=2, this data set has 1\.\n  Resume with the same loader\.batch_size"),
        ({"batch_size": 1, "world_size": 2}, r"world_size=1, this data set has 2\.\n.*trainer\.devices"),
        ({"chunk": 4}, r"chunk_size=18, this data set has 4\.\n.*train\.train_chunk_size"),
        ({"limit": 3}, r"n_steps=9, this data set has 3\.\n.*trainer\.limit_train_batches"),
    ],
)
def test_another_walk_is_refused(options, message):
    with pytest.raises(SamplerError, match=message):
        sampler(**options).load_state_dict(sampler().state_dict())


def test_other_orders_do_not_take_over_from_each_other():
    lanes, chunks = sampler(), ChunkSampler(18, None, seed=0, shuffle=True)
    with pytest.raises(SamplerError, match=r"train\.carry_state=false; this run has true\.\n.*carry_state=false"):
        lanes.load_state_dict(chunks.state_dict())
    with pytest.raises(SamplerError, match=r"train\.carry_state=true; this run has false\.\n.*carry_state=true"):
        chunks.load_state_dict(lanes.state_dict())


def test_more_lanes_than_tracks_are_refused():
    with pytest.raises(SamplerError, match=r"2 tracks for training and 6 rows \(loader\.batch_size=3 x 2.*\n.*=1 or"):
        sampler((4, 9), 3, world_size=2)
    assert sampler((4, 9), 1, world_size=2).n_lanes == 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Training tracks of 64, 20, 80 and 10 frames, the right channel twice the left; values rise with the frame."""
    root = tmp_path_factory.mktemp("lanes")
    for split, files in {"train": (64, 20, 80, 10), "valid": (96,), "test": (40,)}.items():
        (root / split).mkdir()
        for number, frames in enumerate(files):
            ramp = (1000 * number + np.arange(frames)).astype(np.int16)
            write_pcm(root / split / f"{number}.wav", np.stack([ramp, 2 * ramp], axis=1), RATE)
    return root


def module(folder, **options) -> AudioDataModule:
    return AudioDataModule(
        **{"name": "tracks", "path": str(folder), "is_stereo": True, "sample_len": 16, "carry_state": True} | options
    )


def batches(folder, n_epochs, rank=0, world_size=1, **options):
    data = module(folder, **options)
    data.trainer = SimpleNamespace(global_rank=rank, world_size=world_size, limit_train_batches=1.0, fit_loop=None)
    data.setup("fit")
    data.trainer = None
    found = []
    loader = data.train_dataloader()
    for epoch in range(n_epochs):
        loader.sampler.set_epoch(epoch)
        found += list(loader)
    return found


@pytest.mark.parametrize("num_workers", [0, 2])
def test_rows_go_on_with_the_frames_behind_the_last_ones(folder, num_workers):
    rows = {}
    seen = batches(folder, 3, batch_size=2, num_workers=num_workers, train_chunk_size=6)
    assert len(seen) == 9
    for batch in seen:
        for row in range(2):
            pcm = batch.codes[row, :, 0] - 32768
            assert torch.equal(batch.codes[row, :, 1] - 32768, 2 * pcm)
            assert bool(batch.first[row]) == (int(pcm[0]) % 1000 == 0)
            if not batch.first[row]:
                assert int(pcm[0]) == rows[row] + 1
            rows[row] = int(pcm[-1])


def test_the_short_rest_of_a_track_is_its_last_clip(folder):
    # 4 + 2 + 5 + 1 clips, of which two are short.
    seen = batches(folder, 1, batch_size=2, drop_last=False)
    assert len(seen) == 6
    pairs = [pair for batch in seen for pair in zip(batch.clips.tolist(), batch.lengths.tolist(), strict=True)]
    assert all(length == 16 for clip, length in pairs if clip not in (5, 11))
    assert dict(pairs)[5] == 20 - 16
    # Padded to the other row of its batch, or alone as short as it is.
    assert dict(pairs)[11] == 10
    for before, after in pairwise(seen):
        assert bool((after.first | (before.lengths == 16)).all()), "padding is never followed by the same track"


def test_ranks_have_the_rows_of_the_larger_batch(folder):
    one = batches(folder, 2, batch_size=2)
    ranks = [batches(folder, 2, rank, 2, batch_size=1) for rank in range(2)]
    assert [b.clips.tolist() for b in one] == [
        [int(a.clips), int(b.clips)] for a, b in zip(*ranks, strict=True)
    ]  # fmt: skip


def test_other_loaders_do_not_change(folder):
    data, plain = module(folder, val_chunk_size=3), module(folder, val_chunk_size=3, carry_state=False)
    draws = []
    for d in (data, plain):
        d.setup()
        draws.append([batch.clips.tolist() for loader in (d.val_dataloader(), d.test_dataloader()) for batch in loader])
    assert draws[0] == draws[1]
    assert next(iter(plain.train_dataloader())).first is None
