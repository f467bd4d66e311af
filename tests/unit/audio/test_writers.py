"""A WAV file that grows: playable after every block, whole in the end, and kept when the disk is full."""

import os
import threading

import numpy as np
import pytest

from limits import files_of_at_most
from stereo_sashimi.audio import writers
from stereo_sashimi.audio.io import AudioError, probe, read_pcm
from stereo_sashimi.audio.writers import PcmPipe, WavStream, most_frames
from stereo_sashimi.spec import AudioSpec

SPEC = AudioSpec(44100, 2, 16)


def noise(frames: int, channels: int = 2) -> np.ndarray:
    return np.random.default_rng(frames).integers(-9000, 9000, (frames, channels)).astype(np.int16)


@pytest.mark.parametrize("channels", [1, 2])
def test_wav_is_whole_after_every_block(tmp_path, channels):
    file = WavStream(tmp_path / "a0.9.wav", AudioSpec(16000, channels, 8))
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


def test_a_full_disk_keeps_what_was_written(tmp_path, capfd):
    file = WavStream(tmp_path / "a.wav", SPEC)
    parts = [noise(640) for _ in range(100)]
    with files_of_at_most(100_001):
        with pytest.raises(AudioError, match=r"a\.part\.wav: cannot write on \(File too large\)"):
            list(map(file.write, parts))
        written = file.frames
        assert written < 100 * 640
        file.finish()
    kept = read_pcm(tmp_path / "a.wav")[0]
    assert len(kept) == file.frames == written
    assert np.array_equal(kept, np.concatenate(parts)[: len(kept)])
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]
    assert capfd.readouterr().err == ""


def test_a_disk_without_room_for_a_header(tmp_path):
    with files_of_at_most(20):
        file = WavStream(tmp_path / "a.wav", SPEC)
        with pytest.raises(AudioError, match="File too large"):
            file.write(noise(64))
        file.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_vanishes(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    file = WavStream(folder / "a.wav", SPEC)
    file.write(noise(64))
    os.unlink(file.part)
    folder.rmdir()
    with pytest.raises(AudioError, match=r"a\.part\..*: cannot write on \(No such file or directory\)"):
        file.write(noise(64))
    with pytest.raises(AudioError, match=r"cannot write the file to its end \(No such file"):
        file.finish()
    with pytest.raises(AudioError, match=r"cannot write the file \(No such file"):
        WavStream(folder / "a.wav", SPEC)


def test_a_file_ends_where_its_header_does(tmp_path, monkeypatch):
    monkeypatch.setattr(writers, "WAV_BYTES", 403)
    assert most_frames(SPEC) == 100
    file = WavStream(tmp_path / "a.wav", SPEC)
    file.write(noise(64))
    assert file.fits(36)
    assert not file.fits(37)
    file.write(noise(36))
    file.finish()
    assert probe(file.path).frames == 100


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
