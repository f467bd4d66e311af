"""Integer PCM in and out of files: every format, every refusal; `audio/io.py`."""

import os
import struct

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from limits import files_of_at_most
from stereo_sashimi.audio import io
from stereo_sashimi.audio.io import AudioError, open_audio, probe, read_pcm, write_pcm
from stereo_sashimi.audio.quantize import float_to_pcm

ALL_PCM = np.arange(-32768, 32768).astype(np.int16).reshape(-1, 1)
CHANNELS = pytest.mark.parametrize("channels", [1, 2])


def tone(frames=4000, channels=2, peak=0.9):
    t = np.arange(frames)[:, None]
    return peak * np.sin(t * np.array([0.05, 0.031])[:channels])


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".WAV"])
@CHANNELS
def test_round_trip_is_the_identity(tmp_path, suffix, channels):
    path = tmp_path / f"all{suffix}"
    pcm = np.concatenate([ALL_PCM, ALL_PCM[::-1]], axis=1)[:, :channels]
    write_pcm(path, np.ascontiguousarray(pcm), 44100)
    back, clipped = read_pcm(path)
    assert back.dtype == np.int16
    assert back.flags.c_contiguous
    assert clipped == 0
    np.testing.assert_array_equal(back, pcm)
    info = probe(path)
    assert (info.path, info.sample_rate, info.n_channels, info.frames, info.subtype) == (
        path,
        44100,
        channels,
        65536,
        "PCM_16",
    )
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_ranges_are_slices(tmp_path):
    pcm = (np.arange(200).reshape(100, 2) * 97).astype(np.int16)
    for suffix in ("wav", "flac"):
        path = tmp_path / f"ranges.{suffix}"
        write_pcm(path, pcm, 8000)
        with open_audio(path) as file:
            for start, frames in ((0, 100), (30, 7), (37, 7), (12, 0), (0, 1), (99, 1), (100, 0), (50, 50)):
                np.testing.assert_array_equal(read_pcm(path, start, frames)[0], pcm[start : start + frames])
                np.testing.assert_array_equal(read_pcm(path, start)[0], pcm[start:])
                np.testing.assert_array_equal(file.read(start, frames)[0], pcm[start : start + frames])
        for start, frames in ((0, 101), (100, 1), (60, 41), (-1, 2), (3, -1)):
            with pytest.raises(AudioError, match=r"ranges.* has 100 frames"):
                read_pcm(path, start, frames)


def test_a_file_is_opened_once(tmp_path, monkeypatch):
    write_pcm(tmp_path / "a.flac", ALL_PCM, 8000)
    opened, real = [], open
    monkeypatch.setattr("builtins.open", lambda *arguments: opened.append(arguments[0]) or real(*arguments))
    read_pcm(tmp_path / "a.flac")
    assert opened == [tmp_path / "a.flac"]


@pytest.mark.parametrize(("subtype", "suffix"), [("PCM_U8", "wav"), ("PCM_S8", "flac")])
def test_8_bits_are_the_top_byte(tmp_path, subtype, suffix):
    path = tmp_path / f"a.{suffix}"
    wanted = (np.arange(-128, 128) * 256).astype(np.int16)
    soundfile.write(path, wanted, 8000, subtype=subtype)
    assert probe(path).subtype == subtype
    np.testing.assert_array_equal(read_pcm(path)[0][:, 0], wanted)


@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_float_files_are_rounded_and_clips_counted(tmp_path, subtype):
    path = tmp_path / "a.wav"
    x = np.array([0.0, 1.5 / 32768, 2.5 / 32768, -1.0, -1.5, 1.0, 32767.4 / 32768, 7e4])
    soundfile.write(path, x, 8000, subtype=subtype)
    pcm, clipped = read_pcm(path)
    assert pcm[:, 0].tolist() == [0, 2, 2, -32768, -32768, 32767, 32767, 32767]
    assert clipped == 3


def test_double_is_not_rounded_through_float32(tmp_path):
    # 0.5 + 2**-30 LSB is above the half in float64, and exactly half (to even: 0) in float32.
    path = tmp_path / "a.wav"
    soundfile.write(path, np.array([(0.5 + 2**-30) / 32768]), 8000, subtype="DOUBLE")
    assert read_pcm(path)[0].tolist() == [[1]]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_samples_are_refused(tmp_path, value):
    path = tmp_path / "bad.wav"
    x = np.zeros((50, 2), np.float32)
    x[31, 1] = value
    soundfile.write(path, x, 8000, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"bad\.wav: NaN or infinity in frame 31"):
        read_pcm(path, start=20)
    read_pcm(path, 0, 31)


def test_loud_vorbis_is_clipped_not_wrapped(tmp_path):
    path = tmp_path / "loud.ogg"
    soundfile.write(path, tone(peak=1.4), 44100, subtype="VORBIS")
    decoded, _ = soundfile.read(path, dtype="float32")
    pcm, clipped = read_pcm(path)
    exact = np.rint(decoded.astype(np.float64) * 32768)
    assert clipped == np.count_nonzero((exact > 32767) | (exact < -32768)) > 100
    np.testing.assert_array_equal(pcm, np.clip(exact, -32768, 32767))


@pytest.mark.parametrize(("subtype", "suffix"), [("PCM_24", ".wav"), ("PCM_32", ".wav"), ("PCM_24", ".flac")])
def test_wide_files_need_requantize(tmp_path, subtype, suffix):
    path = tmp_path / f"wide{suffix}"
    wide = np.array([0, 32767, 32769, 65536, -(2**31), 2**31 - 256, 40000 * 256], dtype=np.int64)
    wide = (wide // 256 * 256).astype(np.int32)
    soundfile.write(path, wide, 8000, subtype=subtype)
    with pytest.raises(AudioError, match=r"(?s)wide.*dataset\.requantize=true"):
        read_pcm(path)
    pcm, clipped = read_pcm(path, requantize=True)
    assert pcm[:, 0].tolist() == [0, 0, 0, 1, -32768, 32767, 156]
    assert clipped == 1


def test_missing_empty_and_foreign_files_and_pipes_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("this is not audio at all" * 10)
    (tmp_path / "noise.raw").write_bytes(b"\1\2\3\4")
    (tmp_path / "folder.wav").mkdir()
    for name, reason in [
        ("none.wav", "no such file"),
        ("empty.wav", "empty"),
        ("text.wav", "not an audio file"),
        ("noise.raw", "not an audio file"),
        *((name, "not a file but a pipe, device or folder") for name in ("folder.wav", "pipe.wav", "/dev/zero")),
    ]:
        for call in (probe, read_pcm):
            with pytest.raises(AudioError, match=f"{name}.*{reason}"):
                call(tmp_path / name)


@pytest.mark.parametrize("keep", [0.3, 0.8, 0.99])
@pytest.mark.parametrize(
    ("suffix", "subtype"),
    [("wav", "PCM_16"), ("wav", "FLOAT"), ("rf64", "PCM_16"), ("flac", "PCM_16"), ("ogg", "VORBIS")],
)
def test_truncated_files_are_refused(tmp_path, suffix, subtype, keep):
    path = tmp_path / f"cut.{suffix}"
    soundfile.write(path, tone(20000), 44100, format=suffix.upper(), subtype=subtype)
    whole = path.read_bytes()
    assert read_pcm(path)[0].shape == (20000, 2)
    path.write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(AudioError, match=rf"cut\.{suffix}"):
        read_pcm(path)


def test_wav_from_a_pipe_has_no_length_and_is_read(tmp_path):
    path = tmp_path / "pipe.wav"
    write_pcm(path, ALL_PCM, 8000)
    data = bytearray(path.read_bytes())
    at = data.index(b"data")
    data[at + 4 : at + 8] = struct.pack("<I", 0xFFFFFFFF)
    path.write_bytes(data)
    np.testing.assert_array_equal(read_pcm(path)[0], ALL_PCM)


@given(x=hnp.arrays(np.float64, 20, elements=st.floats(-3, 3)))
@settings(max_examples=50, deadline=None)
def test_float_to_pcm_is_nearest(x):
    pcm, clipped = float_to_pcm(x)
    inside = (x * 32768 >= -32768.5) & (x * 32768 < 32767.5)
    assert clipped == np.count_nonzero(~inside)
    assert np.abs(pcm[inside] - x[inside] * 32768).max(initial=0) <= 0.5
    assert (pcm[~inside] == np.where(x[~inside] > 0, 32767, -32768)).all()


def test_float_to_pcm_undoes_a_division_by_full_scale():
    for dtype in (np.float32, np.float64):
        pcm, clipped = float_to_pcm(ALL_PCM.astype(dtype) / dtype(32768))
        np.testing.assert_array_equal(pcm, ALL_PCM)
        assert clipped == 0


def test_float_to_pcm_takes_huge_values_but_not_nan_or_integers():
    assert float_to_pcm(np.array([3e38, -3e38], np.float32))[0].tolist() == [32767, -32768]
    with pytest.raises(ValueError, match="finite"):
        float_to_pcm(np.array([np.nan]))


def test_what_cannot_be_written_is_refused(tmp_path):
    for name in ("a.ogg", "a.mp3", "a"):
        with pytest.raises(AudioError, match=r"\.wav or \.flac"):
            write_pcm(tmp_path / name, np.zeros((4, 1), np.int16), 8000)
    with pytest.raises(AudioError, match=r"a\.flac.*write \.wav"):
        write_pcm(tmp_path / "a.flac", np.zeros((0, 2), np.int16), 8000)
    with pytest.raises(AudioError, match=r"a\.flac: 9 channels"):
        write_pcm(tmp_path / "a.flac", np.zeros((4, 9), np.int16), 8000)
    with pytest.raises(AudioError, match=r"none.a\.wav: cannot write"):
        write_pcm(tmp_path / "none" / "a.wav", ALL_PCM, 8000)
    write_pcm(tmp_path / "a.wav", np.zeros((0, 2), np.int16), 8000)
    assert read_pcm(tmp_path / "a.wav")[0].shape == (0, 2)


def test_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "a.wav"
    write_pcm(path, ALL_PCM[:100], 8000)
    before = path.read_bytes()
    with files_of_at_most(20_000), pytest.raises(AudioError, match=r"a\.wav: cannot write") as caught:
        write_pcm(path, ALL_PCM, 8000)
    assert isinstance(caught.value.__cause__, OSError)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(io.os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_pcm(tmp_path / "a.wav", ALL_PCM, 8000)
    assert list(tmp_path.iterdir()) == []
