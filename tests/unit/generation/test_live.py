"""Files that grow: playable after every block, whole in the end, and what was written stays when the disk is full."""

import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import soundfile

from stereo_sashimi.audio import writers as live
from stereo_sashimi.audio.io import AudioError, probe, read_pcm
from stereo_sashimi.audio.writers import LiveFile, PcmPipe, most_frames
from stereo_sashimi.spec import AudioSpec

SPEC = AudioSpec(44100, 2, 16)


def noise(frames: int, channels: int = 2) -> np.ndarray:
    return np.random.default_rng(frames).integers(-9000, 9000, (frames, channels)).astype(np.int16)


@pytest.mark.parametrize("channels", [1, 2])
def test_wav_is_whole_after_every_block(tmp_path, channels):
    file = LiveFile(tmp_path / "a0.9.wav", AudioSpec(16000, channels, 8))
    parts = [noise(frames, channels) for frames in (64, 1, 64, 500)]
    for i, part in enumerate(parts):
        file.write(part)
        so_far = np.concatenate(parts[: i + 1])
        assert file.frames == len(so_far)
        info = probe(tmp_path / "a0.9.part.wav")
        assert (info.sample_rate, info.n_channels, info.frames) == (16000, channels, len(so_far))
        assert info.subtype == "PCM_16"
        assert np.array_equal(read_pcm(tmp_path / "a0.9.part.wav")[0], so_far)
    file.finish()
    assert [path.name for path in tmp_path.iterdir()] == ["a0.9.wav"]
    assert np.array_equal(read_pcm(tmp_path / "a0.9.wav")[0], np.concatenate(parts))


def test_flac_plays_while_it_grows(tmp_path):
    file = LiveFile(tmp_path / "a.flac", SPEC)
    parts = [noise(64) for _ in range(200)]
    for part in parts:
        file.write(part)
    pcm = np.concatenate(parts)
    with soundfile.SoundFile(tmp_path / "a.part.flac") as growing:
        heard = growing.read(8192, dtype="int16")
    # libFLAC encodes 4096 frames at once.
    assert np.array_equal(heard, pcm[:8192])
    file.finish()
    assert [path.name for path in tmp_path.iterdir()] == ["a.flac"]
    assert np.array_equal(read_pcm(tmp_path / "a.flac")[0], pcm)


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_what_is_discarded_is_gone(tmp_path, suffix):
    file = LiveFile(tmp_path / f"a{suffix}", SPEC)
    file.write(noise(64))
    file.discard()
    LiveFile(tmp_path / f"b{suffix}", SPEC).discard()
    assert list(tmp_path.iterdir()) == []


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """The kernel stops every file of this process there, as a full disk does, in the middle of a write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_a_full_disk_keeps_what_was_written(tmp_path, suffix, capfd):
    file = LiveFile(tmp_path / f"a{suffix}", SPEC)
    parts = [noise(640) for _ in range(100)]
    with files_of_at_most(100_001):
        with pytest.raises(AudioError, match=r"a\.part\.(wav|flac): cannot write on \(File too large\)"):
            list(map(file.write, parts))
        written = file.frames
        assert written < 100 * 640
        file.finish()
    kept = read_pcm(tmp_path / f"a{suffix}")[0]
    assert len(kept) == file.frames
    # FLAC loses the frames that were not encoded yet.
    assert written - (4096 if suffix == ".flac" else 0) <= len(kept) <= written
    assert np.array_equal(kept, np.concatenate(parts)[: len(kept)])
    assert [path.name for path in tmp_path.iterdir()] == [f"a{suffix}"]
    assert capfd.readouterr().err == ""


def test_a_disk_that_is_full_at_the_end_of_flac(tmp_path):
    file = LiveFile(tmp_path / "a.flac", SPEC)
    pcm = noise(5000)
    file.write(pcm)
    with (
        files_of_at_most(file.part.stat().st_size + 10),
        pytest.raises(AudioError, match=r"a\.flac: cannot write the file to its end \(File too large\)"),
    ):
        file.finish()
    assert np.array_equal(read_pcm(tmp_path / "a.flac")[0], pcm[:4096])


def test_a_disk_without_room_for_a_header(tmp_path):
    with files_of_at_most(20):
        wav = LiveFile(tmp_path / "a.wav", SPEC)
        with pytest.raises(AudioError, match="File too large"):
            wav.write(noise(64))
        wav.discard()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_a_folder_that_vanishes(tmp_path, suffix):
    folder = tmp_path / "out"
    folder.mkdir()
    file = LiveFile(folder / f"a{suffix}", SPEC)
    file.write(noise(64))
    os.unlink(file.part)
    folder.rmdir()
    with pytest.raises(AudioError, match=r"a\.part\..*: cannot write on \(No such file or directory\)"):
        file.write(noise(64))
    with pytest.raises(AudioError, match=r"cannot write the file to its end \(No such file"):
        file.finish()
    with pytest.raises(AudioError, match=r"cannot write the file \(No such file"):
        LiveFile(folder / f"a{suffix}", SPEC)


def test_a_wav_file_ends_where_its_header_does(tmp_path, monkeypatch):
    monkeypatch.setattr(live, "WAV_BYTES", 403)
    assert most_frames("wav", SPEC) == 100
    assert most_frames("flac", SPEC) is None
    wav, flac = LiveFile(tmp_path / "a.wav", SPEC), LiveFile(tmp_path / "a.flac", SPEC)
    for file in (wav, flac):
        file.write(noise(64))
        assert file.fits(36)
        assert file.fits(37) is (file is flac)
        file.write(noise(36))
        file.finish()
        assert probe(file.path).frames == 100


def test_another_suffix_is_refused(tmp_path):
    with pytest.raises(AudioError, match=r"as \.wav or \.flac; got suffix '\.mp3'"):
        LiveFile(tmp_path / "a.mp3", SPEC)


def test_raw_samples_are_interleaved_little_endian():
    reader, writer = os.pipe()
    pcm = noise(60_000)
    received = []

    def receive() -> None:
        while data := os.read(reader, 999):
            received.append(data)

    # More than a pipe holds, so that writes fall short.
    thread = threading.Thread(target=receive)
    thread.start()
    PcmPipe(writer).write(pcm)
    os.close(writer)
    thread.join()
    os.close(reader)
    assert b"".join(received) == pcm.astype("<i2").tobytes()


def test_a_reader_that_has_gone():
    reader, writer = os.pipe()
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        PcmPipe(writer).write(noise(4))
    os.close(writer)
