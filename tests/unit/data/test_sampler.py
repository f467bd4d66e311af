"""Orders of clips: every clip once a pass, ranks, resuming, fixed draws."""

from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stereo_sashimi.data.clip_sampler import ChunkSampler, FixedDrawSampler, SamplerError

SIZES = st.tuples(st.integers(1, 40), st.one_of(st.none(), st.integers(1, 50)))


def flat(lists):
    return list(chain.from_iterable(lists))


def epochs(sampler, n):
    walked = []
    for epoch in range(n):
        sampler.set_epoch(epoch)
        walked.append(list(sampler))
        assert len(walked[-1]) == len(sampler)
    return walked


def test_chunks_are_consecutive_and_the_last_is_shorter():
    sampler = ChunkSampler(10, 4, seed=0, shuffle=False)
    assert epochs(sampler, 4) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9], [0, 1, 2, 3]]


def test_shuffle_stays_in_the_chunk_and_differs_by_epoch_and_seed():
    walks = epochs(ChunkSampler(40, 20, seed=0, shuffle=True), 4)
    assert [sorted(walk) for walk in walks] == [list(range(20)), list(range(20, 40))] * 2
    assert walks[0] != walks[2] != list(range(20))
    assert walks != epochs(ChunkSampler(40, 20, seed=1, shuffle=True), 4)
    assert walks == epochs(ChunkSampler(40, 20, seed=0, shuffle=True), 4)


def test_iterating_and_repeating_an_epoch_do_not_advance():
    sampler = ChunkSampler(10, 4, seed=3, shuffle=True)
    walk = list(sampler)
    sampler.set_epoch(0)
    assert list(sampler) == walk == list(sampler)


@given(data=st.data(), world_size=st.integers(1, 4), later=st.integers(1, 4))
@settings(deadline=None, max_examples=60)
def test_a_resume_walks_what_is_left_also_with_other_ranks(data, world_size, later):
    n, chunk = data.draw(SIZES)
    before = [ChunkSampler(n, chunk, seed=1, shuffle=True, rank=r, world_size=world_size) for r in range(world_size)]
    epoch = data.draw(st.integers(0, 5))
    for sampler in before:
        sampler.set_epoch(epoch)
    steps = data.draw(st.integers(0, len(before[0])))
    trained = [index for sampler in before for index in list(sampler)[:steps]]
    before[0].skip(steps * world_size)
    state = before[0].state_dict()

    left = []
    for rank in range(later):
        sampler = ChunkSampler(n, chunk, seed=9, shuffle=True, rank=rank, world_size=later)
        sampler.load_state_dict(state)
        left += list(sampler)
    assert set(trained) | set(left) == set(before[0].order().tolist())


def test_resume_is_exact_and_the_next_epoch_is_whole():
    straight = ChunkSampler(10, 4, seed=0, shuffle=True)
    walks = epochs(straight, 3)
    straight.set_epoch(1)
    straight.skip(3)
    resumed = ChunkSampler(10, 4, seed=0, shuffle=True)
    resumed.load_state_dict(straight.state_dict())
    assert list(resumed) == walks[1][3:]
    assert len(resumed) == 4, "the length is that of the whole epoch: Lightning counts from the epoch's start"
    resumed.set_epoch(1)
    assert list(resumed) == walks[1][3:]
    resumed.set_epoch(2)
    assert list(resumed) == walks[2]


@pytest.mark.parametrize(("n", "chunk", "key"), [(11, 4, "n_examples=10"), (10, 5, "chunk_size=4")])
def test_the_state_of_other_data_is_refused(n, chunk, key):
    state = ChunkSampler(10, 4, seed=0, shuffle=True).state_dict()
    with pytest.raises(SamplerError, match=key):
        ChunkSampler(n, chunk, seed=0, shuffle=True).load_state_dict(state)


def test_skip_refuses_more_than_the_epoch_has():
    with pytest.raises(SamplerError, match="cannot skip 5 clips: epoch 0 has 4"):
        ChunkSampler(10, 4, seed=0, shuffle=True).skip(5)


@given(sizes=SIZES, seed=st.integers(0, 5), world_size=st.integers(1, 4))
@settings(deadline=None, max_examples=60)
def test_a_fixed_draw_loses_and_repeats_nothing_over_ranks(sizes, seed, world_size):
    n, chunk = sizes
    whole = list(FixedDrawSampler(n, chunk, seed))
    assert whole == sorted(set(whole))
    assert len(whole) == min(n, chunk or n)
    assert all(0 <= index < n for index in whole)
    shards = [list(FixedDrawSampler(n, chunk, seed, rank, world_size)) for rank in range(world_size)]
    assert sorted(flat(shards)) == whole
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


@given(
    n=st.integers(1, 60),
    chunk=st.one_of(st.none(), st.integers(1, 70)),
    world_size=st.integers(1, 6),
    batch=st.integers(1, 7),
)
@settings(deadline=None, max_examples=80)
def test_a_pass_over_ranks_and_chunks_loses_nothing_and_keeps_ranks_in_step(n, chunk, world_size, batch):
    ranks = [ChunkSampler(n, chunk, seed=0, shuffle=True, rank=r, world_size=world_size) for r in range(world_size)]
    alone = ChunkSampler(n, chunk, seed=0, shuffle=True)
    seen = []
    for epoch in range(alone.n_chunks):
        for sampler in (*ranks, alone):
            sampler.set_epoch(epoch)
        shards = [list(sampler) for sampler in ranks]
        # A process that has one batch more would wait for the others for ever.
        assert len({-(-len(shard) // batch) for shard in shards}) == 1
        # The k-th batches of all ranks are the k-th batch of one process with batches of `world_size * batch` clips.
        # Only behind the last clip do clips of the chunk's beginning come again, fewer than ranks.
        whole = list(alone)
        together = [shard[k : k + batch] for k in range(0, len(shards[0]), batch) for shard in shards]
        for k in range(0, len(whole), world_size * batch):
            step = flat(together[:world_size])
            together = together[world_size:]
            expected = whole[k : k + world_size * batch]
            assert set(expected) <= set(step)
            assert len(step) - len(expected) < world_size
            if len(step) == len(expected):
                assert sorted(step) == sorted(expected)
        assert together == []
        seen += flat(shards)
    assert set(seen) == set(range(n))
    assert len(seen) - n < world_size * alone.n_chunks


@pytest.mark.parametrize(("n", "chunk", "world_size"), [(1, None, 2), (30, 3, 4)])
def test_a_draw_with_fewer_clips_than_processes_is_refused_on_each_of_them(n, chunk, world_size):
    for rank in range(world_size):
        sampler = FixedDrawSampler(n, chunk, 0, rank, world_size)
        with pytest.raises(SamplerError, match=rf"the valid split gives {min(n, chunk or n)} clips for {world_size} "):
            sampler.check_shards("valid")
    FixedDrawSampler(4, None, 0, 3, 4).check_shards("valid")


def test_a_fixed_draw_is_the_same_every_time_and_spreads_over_all_clips():
    sampler = FixedDrawSampler(1000, 100, seed=0)
    assert list(sampler) == list(sampler) == list(FixedDrawSampler(1000, 100, seed=0))
    assert list(sampler) != list(FixedDrawSampler(1000, 100, seed=1))
    assert np.histogram(list(sampler), bins=4, range=(0, 1000))[0].min() > 10
