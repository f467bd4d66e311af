"""Files to clips: splits, crops, rates, channels, batches."""

import numpy as np
import pytest
import soundfile
import torch
from audio_files import RATE, make_file, spec
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from stereo_sashimi.audio import ChannelError, float_to_pcm, read_pcm, resample, write_pcm
from stereo_sashimi.data.dataset import AudioFolder, collate
from stereo_sashimi.data.split import DataError, find_audio
from stereo_sashimi.spec import AudioSpec


@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=5),
    sample_len=st.integers(1, 20),
    drop_last=st.booleans(),
    channels=st.integers(1, 2),
)
@settings(deadline=None, max_examples=30)
def test_clips_are_consecutive_and_complete(tmp_path_factory, lengths, sample_len, drop_last, channels):
    folder = tmp_path_factory.mktemp("clips")
    files, expected, places = [], [], []
    for number, frames in enumerate(lengths):
        path = folder / f"{number}.wav"
        pcm = make_file(path, frames, channels, seed=number)
        files.append(path)
        for start in range(0, frames, sample_len):
            if start + sample_len <= frames or not drop_last:
                expected.append(pcm[start : start + sample_len].astype(int) + 32768)
                places.append((path, start))
    if not expected:
        with pytest.raises(DataError, match=f"has {max(lengths)}"):
            AudioFolder(files, spec(channels), sample_len, drop_last=drop_last)
        return
    data = AudioFolder(files, spec(channels), sample_len, drop_last=drop_last)
    assert len(data) == len(expected)
    for index, codes in enumerate(expected):
        item, number = data[index]
        assert number == index
        assert item.dtype == torch.int64
        assert np.array_equal(item.numpy(), codes)
    assert [data.describe(index) for index in range(len(data))] == places


def test_an_index_outside_is_an_index_error(tmp_path):
    make_file(tmp_path / "a.wav", 10)
    data = AudioFolder(find_audio(tmp_path), spec(), 5)
    for index in (-1, 2):
        with pytest.raises(IndexError, match=r"there are 2 \(0 to 1\)"):
            data[index]


def test_items_read_only_their_own_frames(tmp_path, monkeypatch):
    make_file(tmp_path / "a.wav", 100)
    data = AudioFolder(find_audio(tmp_path), spec(), 10)
    seen = []

    def spy(path, start=0, frames=None, *, requantize=False):
        seen.append((start, frames))
        return read_pcm(path, start, frames, requantize=requantize)

    monkeypatch.setattr("stereo_sashimi.data.dataset.read_pcm", spy)
    data[7]
    assert seen == [(70, 10)]


def test_downmix_and_upmix(tmp_path):
    stereo = make_file(tmp_path / "a.wav", 10)
    mono = AudioFolder([tmp_path / "a.wav"], spec(1), 10)[0][0]
    assert mono[:, 0].tolist() == (np.rint(stereo.astype(int).sum(1) / 2) + 32768).tolist()
    make_file(tmp_path / "m.wav", 10, channels=1)
    with pytest.raises(ChannelError, match=r"'mine' has is_stereo=true but clip m.wav has 1 channel"):
        AudioFolder([tmp_path / "m.wav"], spec(), 10, name="mine")
    both = AudioFolder([tmp_path / "m.wav"], spec(), 10, upmix=True)[0][0]
    assert torch.equal(both[:, 0], both[:, 1])


def test_normalisation_is_per_clip(tmp_path):
    quiet = np.repeat(np.array([0, 100, -100, 50], np.int16), 2)[:, None]
    write_pcm(tmp_path / "a.wav", np.concatenate([quiet, quiet * 100]), RATE)
    data = AudioFolder([tmp_path / "a.wav"], spec(1, normalize="minmax", bits=8), 8)
    assert torch.equal(data[0][0], data[1][0])
    assert data[0][0].max() == 255


def test_a_converted_file_is_cut_without_edges(tmp_path):
    t = np.arange(16000)
    pcm = np.rint(12000 * np.stack([np.sin(t / 20), np.cos(t / 33)], axis=1)).astype(np.int16)
    write_pcm(tmp_path / "a.wav", pcm, 16000)

    def clips(sample_len, **options):
        data = AudioFolder([tmp_path / "a.wav"], spec(), sample_len, resampler="soxr", cache_folder=tmp_path, **options)
        return torch.cat([data[index][0] for index in range(len(data))])

    whole, parts = clips(8000), clips(100)
    assert torch.equal(whole, parts)
    # Every second frame of a slow sine is what half the rate must give; at the ends within 2 percent of the amplitude.
    assert np.abs(whole.numpy() - 32768 - pcm[::2])[1000:-1000].max() <= 2
    assert np.abs(whole.numpy() - 32768 - pcm[::2]).max() <= 240
    copies = list((tmp_path / ".cache-resampled" / "8000").iterdir())
    assert len(copies) == 1
    assert find_audio(tmp_path) == [tmp_path / "a.wav"], "converted copies are no data of their own"

    # A file of the right rate is not copied, a changed one is converted again.
    make_file(tmp_path / "b.wav", 10)
    AudioFolder([tmp_path / "b.wav"], spec(), 5, resampler="soxr", cache_folder=tmp_path)
    assert len(list((tmp_path / ".cache-resampled" / "8000").iterdir())) == 1
    write_pcm(tmp_path / "a.wav", pcm[:4000], 16000)
    assert len(clips(100)) == 2000


@given(frames=st.integers(600, 3000), sample_len=st.integers(20, 100), drop_last=st.booleans())
@settings(deadline=None, max_examples=10)
def test_clips_are_cut_from_the_conversion_of_the_whole_file(tmp_path_factory, frames, sample_len, drop_last):
    folder = tmp_path_factory.mktemp("clips")
    file = folder / "a.wav"
    pcm = make_file(file, frames, rate=44100) // 4
    write_pcm(file, pcm, 44100)
    data = AudioFolder([file], spec(), sample_len, resampler="soxr", cache_folder=folder, drop_last=drop_last)
    whole, clipped = float_to_pcm(resample(pcm.astype(np.float32) / 32768, 44100, RATE))
    assert not clipped
    clips = torch.cat([data[index][0] for index in range(len(data))]).numpy() - 32768
    length = len(whole) // sample_len * sample_len if drop_last else len(whole)
    np.testing.assert_array_equal(clips, whole[:length])


def loud(path, frames=400, over=(), rate=RATE):
    """A float file whose frames `over` exceed full scale, in the left channel only."""
    samples = np.full((frames, 2), 0.25, np.float32)
    samples[list(over), 0] = 1.5
    soundfile.write(path, samples, rate, subtype="FLOAT")


def test_samples_above_full_scale_are_counted_and_told_once(tmp_path, caplog):
    for name, over in (("a", (5, 120, 121)), ("b", ()), ("c", (0, 399))):
        loud(tmp_path / f"{name}.wav", over=over)
    files = [tmp_path / f"{name}.wav" for name in "abc"]
    with caplog.at_level("INFO", "stereo_sashimi"):
        data = AudioFolder(files, spec(), 100, name="mine")
        assert (data.clipped, caplog.records) == ({}, []), "nothing is decoded before it is asked for"
        for index in (1, 1, 0, 4, 11, 8):
            data[index]
        assert data.clipped == {files[0]: 3, files[2]: 2}, "a clip that is read again counts once"
        for index in range(len(data)):
            data[index]
    assert data.clipped == {files[0]: 3, files[2]: 2}
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "'mine'" in caplog.text
    assert f"{files[0]} exceeds full scale; 2 samples of its clip at frame 100" in caplog.text
    assert f"{files[2]} exceeds full scale; 1 samples of its clip at frame 300" in caplog.text


def test_workers_count_what_they_clip(tmp_path, capfd):
    loud(tmp_path / "a.wav", over=(5, 120, 350))
    data = AudioFolder([tmp_path / "a.wav"], spec(), 100)
    for _ in range(2):
        list(DataLoader(data, num_workers=1, multiprocessing_context="fork"))
    assert data.clipped == {tmp_path / "a.wav": 3}
    assert capfd.readouterr().err.count("exceeds full scale") <= 1


def test_samples_clipped_by_a_conversion_are_told_when_it_is_made(tmp_path, caplog):
    loud(tmp_path / "a.wav", frames=800, over=range(400, 420), rate=2 * RATE)
    options = {"resampler": "soxr", "cache_folder": tmp_path, "name": "mine"}
    with caplog.at_level("INFO", "stereo_sashimi"):
        data = AudioFolder([tmp_path / "a.wav"], spec(), 100, **options)
        assert data.clipped[tmp_path / "a.wav"] >= 20
        AudioFolder([tmp_path / "a.wav"], spec(), 100, **options)
    assert len(caplog.records) == 1
    assert f"samples in 1 files, such as {tmp_path / 'a.wav'}, exceeded full scale" in caplog.text


def test_a_context_that_no_clip_outlasts_is_refused(tmp_path):
    make_file(tmp_path / "a.wav", 25)
    make_file(tmp_path / "b.wav", 33)
    data = AudioFolder(find_audio(tmp_path), spec(), 40, drop_last=False)
    data.check_context(32, "train")
    with pytest.raises(DataError, match=r"longest clip for train has 33 frames(.|\n)*context_len to 32 or less"):
        data.check_context(33, "train")
    AudioFolder(find_audio(tmp_path), spec(), 20).check_context(19, "train")


@pytest.mark.parametrize("channels", [1, 2])
def test_collate_pads_with_the_start_code_and_says_which_clips_begin_a_track(channels):
    items = [(torch.full((4, channels), 7), 5), (torch.full((2, channels), 9), 0), (torch.full((4, channels), 7), 6)]
    batch = collate(items, 128)
    assert batch.codes.shape == (3, 4, channels)
    assert batch.codes[1, :, 0].tolist() == [9, 9, 128, 128]
    assert (batch.lengths.tolist(), batch.clips.tolist(), batch.first) == ([4, 2, 4], [5, 0, 6], None)
    assert {tensor.dtype for tensor in batch[:3]} == {torch.int64}
    assert collate(items, 128, begins=np.array([0, 3, 5])).first.tolist() == [True, True, False]


def test_tracks_are_the_files_that_have_clips(tmp_path):
    for name, frames in {"a": 11, "b": 3, "c": 8, "d": 4}.items():
        write_pcm(tmp_path / f"{name}.wav", np.zeros((frames, 2), np.int16), 8000)
    files = [tmp_path / f"{name}.wav" for name in "abcd"]
    for drop_last, first, counts in ((True, [0, 2, 4], [2, 2, 1]), (False, [0, 3, 4, 6], [3, 1, 2, 1])):
        data = AudioFolder(files, AudioSpec(8000, 2, 8), 4, drop_last=drop_last)
        assert [part.tolist() for part in data.tracks] == [first, counts]
        assert [data.describe(int(clip))[1] for clip in data.tracks[0]] == [0] * len(first)


@pytest.mark.parametrize("warm_up", [1, 5, 100])
def test_frames_in_front_of_a_clip_come_along(tmp_path, warm_up):
    """Start codes where the track has none; the clips themselves stay."""
    pcm = [make_file(tmp_path / f"{i}.wav", 50, 2, seed=i) for i in range(2)]
    files = [tmp_path / "0.wav", tmp_path / "1.wav"]
    data, plain = (
        AudioFolder(files, spec(2), 20, drop_last=False, warm_up=warm_up),
        AudioFolder(files, spec(2), 20, drop_last=False),
    )
    batch = collate([data[i] for i in range(len(data))], 32768, warm_up=warm_up)
    usual = collate([plain[i] for i in range(len(plain))], 32768)
    assert usual.before is None
    assert torch.equal(batch.codes, usual.codes)
    assert torch.equal(batch.lengths, usual.lengths)
    for row, clip in enumerate(batch.clips.tolist()):
        track = np.concatenate([np.zeros((warm_up, 2), int), pcm[clip // 3].astype(int)]) + 32768
        start = clip % 3 * 20
        assert np.array_equal(batch.before[row].numpy(), track[start : start + warm_up])
