"""The data module: properties, loaders, errors, and that a resumed run sees exactly the clips of a straight one."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tracks import RATE, module

from stereo_sashimi.audio import write_pcm
from stereo_sashimi.data.clip_sampler import SamplerError
from stereo_sashimi.data.datamodule import AudioDataModule
from stereo_sashimi.data.dataset import Batch
from stereo_sashimi.data.split import DataError
from stereo_sashimi.spec import AudioSpec


@pytest.mark.parametrize(("is_stereo", "channels"), [(False, 1), (True, 2)])
@pytest.mark.parametrize("bits", [8, 16])
def test_properties_before_and_after_setup(folder, is_stereo, channels, bits):
    data = module(folder, is_stereo=is_stereo, bits=bits)
    for _ in range(2):
        assert data.d_input == channels
        assert data.n_levels == 2**bits
        assert data.spec == AudioSpec(RATE, channels, bits)
        data.setup()
    batch = next(iter(data.train_dataloader()))
    assert isinstance(batch, Batch)
    assert batch.codes.shape == (1, 16, channels)


def test_relative_paths_are_under_data_dir(folder):
    data = AudioDataModule(name="tracks", path=folder.name, data_dir=str(folder.parent))
    assert data.folder == folder
    assert module(folder, data_dir="elsewhere").folder == folder


def test_loaders_cover_the_splits(folder):
    data = module(folder, batch_size=4, sample_len=16)
    data.setup()
    clips = {
        name: sorted(torch.cat([batch.clips for batch in loader]).tolist())
        for name, loader in {
            "train": data.train_dataloader(),
            "valid": data.val_dataloader(),
            "test": data.test_dataloader(),
        }.items()
    }
    assert clips == {"train": list(range(10)), "valid": list(range(6)), "test": [0, 1]}


def test_iterating_does_not_draw_from_the_global_generator(folder):
    data = module(folder)
    data.setup("fit")
    before = torch.get_rng_state()
    list(data.train_dataloader())
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pad_len": -1}, "dataset.pad_len must be 0 or more"),
        ({"pad_len": 3, "carry_state": True}, r"pad_len=3 .*train\.carry_state=true.*dataset\.pad_len=null"),
        ({"train_chunk_size": 0}, "train.train_chunk_size must be 1 or more"),
        ({"resampler": "sox"}, "dataset.resampler must be one of soxr, torchaudio"),
        ({"persistent_workers": True}, "persistent_workers=true needs loader.num_workers"),
        ({"warm_up": -1}, r"dataset\.warm_up must be 0 or more; got -1"),
        ({"warm_up": 9, "normalize": "peak"}, r"dataset\.warm_up=9 reads on.*Set dataset\.normalize=none"),
    ],
)
def test_values_outside_their_range_are_refused_at_once(folder, options, message):
    with pytest.raises(ValueError, match=message):
        module(folder, **options)


def test_splits_of_two_rates_are_refused_or_converted(tmp_path):
    for split, rate in {"train": 8000, "valid": 16000, "test": 8000}.items():
        (tmp_path / split).mkdir()
        write_pcm(tmp_path / split / "a.wav", np.zeros((64, 2), np.int16), rate)
    with pytest.raises(
        DataError, match=r"valid.a\.wav has 16000 Hz, but .*train.a\.wav has 8000 Hz(.|\n)*dataset\.sample_rate"
    ):
        module(tmp_path).setup("fit")
    data = module(tmp_path, sample_rate=8000)
    data.setup()
    assert [len(data.datasets[split]) for split in ("train", "valid", "test")] == [4, 2, 4]


def test_a_state_without_a_trainer_is_continued(folder):
    data = module(folder, train_chunk_size=4, batch_size=2)
    data.setup("fit")
    state = data.state_dict() | {"epoch": 1, "outer_epoch": 1, "position": 4, "consumed": 2}
    rest = []
    for setup_first in (True, False):
        other = module(folder, train_chunk_size=4, batch_size=2)
        if setup_first:
            other.setup("fit")
        other.load_state_dict(state)
        other.setup("fit")
        rest.append([batch.clips.tolist() for batch in other.train_dataloader()])
    data.train_dataloader().sampler.set_epoch(1)
    assert rest[0] == rest[1] == [[batch.clips.tolist() for batch in data.train_dataloader()][1]]


def test_a_mid_epoch_state_of_another_batch_size_is_refused(folder):
    data = module(folder, batch_size=2)
    data.setup("fit")
    state = data.state_dict() | {"consumed": 4}
    other = module(folder, batch_size=1)
    other.setup("fit")
    with pytest.raises(SamplerError, match="batches of 2 clips over all processes; this run has 1"):
        other.load_state_dict(state)
    # At an epoch's end nothing is left to be cut into batches.
    other.load_state_dict(state | {"consumed": 10})
    assert list(other.train_dataloader()) == []


@pytest.mark.parametrize("consumed", [0, 4])
def test_ranks_share_the_clips(folder, consumed):
    train, valid = [], []
    for rank in range(2):
        data = module(folder, batch_size=2, train_chunk_size=5, val_chunk_size=5)
        counter = SimpleNamespace(processed=0)
        loop = SimpleNamespace(restarting=True, epoch_progress=SimpleNamespace(current=counter))
        loop.epoch_loop = SimpleNamespace(batch_progress=SimpleNamespace(total=counter))
        data.trainer = SimpleNamespace(global_rank=rank, world_size=2, fit_loop=loop)
        data.setup("fit")
        state = data._sampler.state_dict()
        data.load_state_dict(state | {"consumed": consumed, "global_batch": 4})
        train.append([clip for batch in data.train_dataloader() for clip in batch.clips.tolist()])
        valid.append([clip for batch in data.val_dataloader() for clip in batch.clips.tolist()])
    assert [len(clips) for clips in train] == [(6 - consumed) // 2] * 2
    if not consumed:
        assert set(train[0]) | set(train[1]) == set(range(5))
    assert len(set(valid[0] + valid[1])) == len(valid[0] + valid[1]) == 5
