"""The data module: properties, loaders, errors, and that a resumed run sees exactly the clips of a straight one."""

import math
import warnings
from itertools import chain
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch.utils.data import RandomSampler, SequentialSampler

from stereo_sashimi.audio import ChannelError, write_pcm
from stereo_sashimi.data.clip_sampler import SamplerError
from stereo_sashimi.data.datamodule import AudioDataModule
from stereo_sashimi.data.dataset import Batch
from stereo_sashimi.data.split import DataError
from stereo_sashimi.spec import AudioSpec

RATE = 8000

# Lightning 2.6 on torch 2.13, not ours.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """10 training clips, 6 validation clips and 2 test clips of 16 stereo frames."""
    root = tmp_path_factory.mktemp("data") / "tracks"
    for split, files in {"train": (64, 20, 80), "valid": (96,), "test": (40,)}.items():
        (root / split).mkdir(parents=True)
        for number, frames in enumerate(files):
            pcm = np.random.default_rng(frames).integers(-9, 9, (frames, 2)).astype(np.int16)
            write_pcm(root / split / f"{number}.wav", pcm, RATE)
    return root


def module(folder, **options):
    return AudioDataModule(**{"name": "tracks", "path": str(folder), "is_stereo": True, "sample_len": 16} | options)


@pytest.mark.parametrize(("is_stereo", "channels"), [(False, 1), (True, 2)])
@pytest.mark.parametrize("bits", [8, 16])
def test_properties_before_and_after_setup(folder, is_stereo, channels, bits):
    data = module(folder, is_stereo=is_stereo, bits=bits)
    for _ in range(2):
        assert data.d_input == channels
        assert data.n_levels == data.d_output == 2**bits
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


def test_short_clips_are_kept_and_padded(folder):
    data = module(folder, batch_size=12, drop_last=False)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert sorted(batch.lengths.tolist()) == [4] + [16] * 10
    row = batch.lengths.argmin()
    assert (batch.codes[row, 4:] == data.spec.start_code).all()


def test_validation_is_the_same_draw_every_time(folder):
    data = module(folder, val_chunk_size=3)
    data.setup("fit")
    draws = [[int(batch.clips) for batch in data.val_dataloader()] for _ in range(2)]
    assert len(draws[0]) == 3
    assert draws[0] == draws[1] == sorted(draws[0])
    assert not isinstance(data.val_dataloader().sampler, RandomSampler | SequentialSampler)


def test_iterating_does_not_draw_from_the_global_generator(folder):
    data = module(folder)
    data.setup("fit")
    before = torch.get_rng_state()
    list(data.train_dataloader())
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample_len": 0}, "dataset.sample_len must be 1 or more"),
        ({"context_len": 16}, "dataset.context_len must be below dataset.sample_len=16"),
        ({"pad_len": -1}, "dataset.pad_len must be 0 or more"),
        ({"batch_size": 0}, "loader.batch_size must be 1 or more"),
        ({"train_chunk_size": 0}, "train.train_chunk_size must be 1 or more"),
        ({"train_percentage": 1.5}, "train_percentage must be between 0 and 1"),
        ({"resampler": "sox"}, "dataset.resampler must be one of soxr, torchaudio"),
        ({"persistent_workers": True}, "persistent_workers=true needs loader.num_workers"),
        ({"bits": 12}, "bits must be 8 or 16"),
        ({"quantization": "alaw"}, "quantization must be one of linear, mu-law"),
        ({"normalize": "rms"}, "normalize must be one of none, peak, minmax"),
        ({"sample_rate": -1}, "sample_rate must be at least 1 Hz"),
    ],
)
def test_values_outside_their_range_are_refused_at_once(folder, options, message):
    with pytest.raises(ValueError, match=message):
        module(folder, **options)


def test_a_missing_folder_names_the_path_and_the_command(tmp_path):
    with pytest.raises(DataError, match=r"nowhere(.|\n)*python preprocess/musdb18stereo_wav\.py"):
        module(tmp_path / "nowhere").setup("fit")


def test_splits_of_two_rates_are_refused_or_converted(tmp_path):
    for split, rate in {"train": 8000, "valid": 16000, "test": 8000}.items():
        (tmp_path / split).mkdir()
        write_pcm(tmp_path / split / "a.wav", np.zeros((64, 2), np.int16), rate)
    with pytest.raises(DataError, match=r"valid.a\.wav has 16000 Hz, but .*train.a\.wav has 8000 Hz"):
        module(tmp_path).setup("fit")
    data = module(tmp_path, sample_rate=8000)
    data.setup()
    assert [len(data.datasets[split]) for split in ("train", "valid", "test")] == [4, 2, 4]


def test_mono_files_in_a_stereo_data_set(tmp_path):
    for split in ("train", "valid", "test"):
        (tmp_path / split).mkdir()
        write_pcm(tmp_path / split / "a.wav", np.zeros((64, 1), np.int16), RATE)
    with pytest.raises(ChannelError, match=r"'tracks' has is_stereo=true but clip a\.wav has 1 channel"):
        module(tmp_path).setup("fit")
    data = module(tmp_path, upmix=True)
    data.setup("fit")
    assert data.datasets["train"][0][0].shape == (16, 2)


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


class Recorder(pl.LightningModule):
    """Trains one number and writes down which clips each step saw."""

    def __init__(self, fail_at=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.steps: list[list[int]] = []
        self.epochs: list[int] = []
        self.validated: list[list[int]] = []
        self.fail_at = fail_at

    def training_step(self, batch, batch_idx):
        if self.global_step == self.fail_at:
            raise InterruptedError("pulled the plug")
        self.steps.append(batch.clips.tolist())
        return self.weight

    def on_validation_epoch_start(self):
        self.validated.append([])

    def validation_step(self, batch, batch_idx):
        self.validated[-1] += batch.clips.tolist()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Save(Callback):
    """Saves when a hook has been called at a global step, and nowhere else."""

    def __init__(self, path, hook, step):
        def save(trainer, *_, **__):
            if trainer.global_step == step and not trainer.sanity_checking and not path.exists():
                trainer.save_checkpoint(path)

        setattr(self, hook, save)


def fit(folder, recorder=None, ckpt=None, callbacks=(), options=None, **trainer_options):
    recorder = recorder or Recorder()
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=list(callbacks),
        **{"max_epochs": 5, "num_sanity_val_steps": 1} | trainer_options,
    )
    data = module(folder, **{"train_chunk_size": 4, "batch_size": 2, "val_chunk_size": 3} | (options or {}))
    trainer.fit(recorder, data, ckpt_path=ckpt, weights_only=True if ckpt else None)
    return recorder


def test_epochs_walk_the_chunks_in_turn(folder):
    recorder = fit(folder)
    per_epoch = [recorder.steps[0:2], recorder.steps[2:4], recorder.steps[4:5], recorder.steps[5:7], recorder.steps[7:]]
    expected = [range(0, 4), range(4, 8), range(8, 10), range(0, 4), range(4, 8)]
    assert [sorted(chain.from_iterable(steps)) for steps in per_epoch] == [list(chunk) for chunk in expected]
    # Validation follows every epoch, also the shorter one, always with the same clips.
    assert len(recorder.validated) == 1 + 5
    assert recorder.validated[1:] == [recorder.validated[1]] * 5


# Steps of an epoch: 2, 2, 1, 2, 2. So 3 is inside epoch 1, 4 and 5 are ends of epochs.
HOOKS = ["on_train_batch_end", "on_validation_end", "on_train_epoch_end"]


@pytest.mark.parametrize("validation", [{}, {"limit_val_batches": 0}, {"check_val_every_n_epoch": 2}])
@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_a_resumed_run_sees_the_same_clips(folder, tmp_path, hook, step, validation):
    path = tmp_path / "saved.ckpt"
    straight = fit(folder, callbacks=[Save(path, hook, step)], **validation)
    if not path.exists():
        assert hook != "on_train_batch_end", "the other hooks only run at the end of some epochs"
        return
    resumed = fit(folder, ckpt=path, **validation)
    assert straight.steps[:step] + resumed.steps == straight.steps


@pytest.mark.parametrize("hook", HOOKS)
def test_a_resume_after_the_short_chunk(folder, tmp_path, hook):
    path = tmp_path / "saved.ckpt"
    straight = fit(folder, callbacks=[Save(path, hook, 5)])
    # After on_train_batch_end Lightning counts an empty epoch here, hence 6.
    resumed = fit(folder, ckpt=path, max_epochs=5 + (hook == "on_train_batch_end"))
    assert straight.steps[:5] + resumed.steps == straight.steps


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"num_workers": 2}, {"num_workers": 2, "persistent_workers": True}])
def test_workers_that_fetch_ahead_lose_nothing(folder, tmp_path, options):
    path = tmp_path / "saved.ckpt"
    plain = fit(folder)
    straight = fit(folder, callbacks=[Save(path, "on_train_batch_end", 3)], options=options, num_sanity_val_steps=0)
    assert straight.steps == plain.steps
    assert plain.steps[:3] + fit(folder, ckpt=path, options=options).steps == plain.steps


@pytest.mark.parametrize("chunk", [5, None])
def test_equal_chunks_need_no_reload(folder, tmp_path, chunk):
    path = tmp_path / "saved.ckpt"
    options = {"train_chunk_size": chunk}
    straight = fit(folder, callbacks=[Save(path, "on_train_batch_end", 4)], options=options)
    assert len(straight.steps) == 5 * math.ceil((chunk or 10) / 2)
    assert straight.steps[:4] + fit(folder, ckpt=path, options=options).steps == straight.steps


@pytest.mark.parametrize("stop", [1, 3, 4])
def test_a_run_that_stopped_at_max_steps_goes_on_where_it_was(folder, tmp_path, stop):
    path = tmp_path / "saved.ckpt"
    straight = fit(folder)
    first = fit(folder, max_steps=stop, callbacks=[Save(path, "on_train_end", stop)])
    # Lightning counts the epoch that was cut short, or an empty one after a run that was not: one epoch more.
    resumed = fit(folder, ckpt=path, max_epochs=6, max_steps=9)
    assert first.steps + resumed.steps == straight.steps


@pytest.mark.parametrize("validation", [{}, {"limit_val_batches": 0}])
@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_a_run_that_ended_can_be_made_longer(folder, tmp_path, epochs, validation):
    path = tmp_path / "saved.ckpt"
    straight = fit(folder)
    steps = [0, 2, 4, 5][epochs]
    first = fit(folder, max_epochs=epochs, callbacks=[Save(path, "on_train_end", steps)], **validation)
    resumed = fit(folder, ckpt=path, max_epochs=6, **validation)
    assert first.steps + resumed.steps == straight.steps


def test_a_crash_is_resumed(folder, tmp_path):
    path = tmp_path / "saved.ckpt"
    straight = fit(folder)
    crashed = Recorder(fail_at=3)
    with pytest.raises(InterruptedError):
        fit(folder, crashed, callbacks=[Save(path, "on_exception", 3)])
    assert crashed.steps + fit(folder, ckpt=path).steps == straight.steps


def test_a_run_can_be_resumed_twice(folder, tmp_path):
    paths = [tmp_path / "first.ckpt", tmp_path / "second.ckpt"]
    straight = fit(folder)
    fit(folder, max_steps=1, callbacks=[Save(paths[0], "on_train_end", 1)])
    middle = fit(folder, ckpt=paths[0], max_epochs=6, callbacks=[Save(paths[1], "on_train_batch_end", 3)])
    assert straight.steps[1:] == middle.steps[: len(straight.steps) - 1]
    last = fit(folder, ckpt=paths[1], max_epochs=6)
    assert straight.steps[3:] == last.steps[: len(straight.steps) - 3]


def test_limits_on_batches_keep_the_resume(folder, tmp_path):
    path = tmp_path / "saved.ckpt"
    options = {"train_chunk_size": 5}
    straight = fit(folder, callbacks=[Save(path, "on_train_epoch_end", 4)], options=options, limit_train_batches=2)
    assert len(straight.steps) == 10
    assert straight.steps[:4] + fit(folder, ckpt=path, options=options, limit_train_batches=2).steps == straight.steps


@pytest.mark.filterwarnings("ignore:You requested to overfit")
def test_overfitting_one_batch_repeats_it(folder):
    recorder = fit(folder, overfit_batches=1, max_epochs=3)
    assert recorder.steps == [recorder.steps[0]] * 3


def test_a_second_trainer_begins_at_the_beginning(folder):
    data = module(folder, train_chunk_size=4)
    recorders = []
    for _ in range(2):
        recorders.append(Recorder())
        trainer = pl.Trainer(
            accelerator="cpu", max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(recorders[-1], data)
    assert recorders[0].steps == recorders[1].steps


def test_val_check_interval_longer_than_the_last_chunk_is_refused_at_the_start(folder):
    with pytest.raises(DataError, match=r"last chunk .* has 1 batches, fewer than trainer\.val_check_interval=2"):
        fit(folder, val_check_interval=2)


def test_no_warning_is_hidden_by_the_filters(folder, tmp_path):
    path = tmp_path / "saved.ckpt"
    fit(folder, callbacks=[Save(path, "on_train_batch_end", 3)])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(folder, ckpt=path)
    assert not [str(w.message) for w in caught if "not resumable" in str(w.message)]
