"""The preprocess command on small MUSDB trees and the stem sample; `data/prepare.py`."""

import hashlib
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from musdb_folders import FRAMES, manifest, noise, run, tree

from stereo_sashimi.audio.io import probe, read_pcm, write_pcm
from stereo_sashimi.data.corpora import musdb as prepare
from stereo_sashimi.data.corpora.musdb import prepare_musdb
from stereo_sashimi.data.corpora.prepare_command import main
from stereo_sashimi.data.split import split_folder

pytestmark = pytest.mark.usefixtures("no_musdb_path")


def test_whole_tracks(hq, tmp_path):
    out = tmp_path / "out"
    assert run("--root", hq, "--out", out, "--targets", "vocals,mixture") == 0
    content = manifest(out)
    assert content["schema_version"] == 1
    assert content["settings"]["targets"] == ["mixture", "vocals"]
    assert [f["path"] for f in content["files"]] == [
        "train/A Band - One_mixture.wav",
        "train/A Band - One_vocals.wav",
        "train/B - Ünder 水_mixture.wav",
        "train/B - Ünder 水_vocals.wav",
        "valid/Young Griffo - Pennies_mixture.wav",
        "valid/Young Griffo - Pennies_vocals.wav",
        "test/Z - Last_mixture.wav",
        "test/Z - Last_vocals.wav",
    ]
    vocals = content["files"][3]
    file, pcm = out / vocals["path"], noise(14)
    np.testing.assert_array_equal(read_pcm(file)[0], pcm)
    assert probe(file).subtype == "PCM_16"
    left, right = pcm.astype(np.float64).T
    assert vocals.pop("side_mid_ratio") == pytest.approx(((left - right) ** 2).sum() / ((left + right) ** 2).sum())
    assert vocals == {
        "path": "train/B - Ünder 水_vocals.wav",
        "track": "B - Ünder 水",
        "target": "vocals",
        "split": "train",
        "source": "train/B - Ünder 水/vocals.wav",
        "source_bytes": (hq / "train/B - Ünder 水/vocals.wav").stat().st_size,
        "decoder": "soundfile",
        "start_frame": 0,
        "frames": FRAMES,
        "pad_frames": 0,
        "sample_rate": 44100,
        "channel": None,
        "channels": 2,
        "peak": np.abs(pcm).max() / 32768,
        "clipped": 0,
        "bytes": file.stat().st_size,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }
    assert not (out / ".journal").exists()
    assert {name: len(files) for name, files in split_folder(out, 0.88).files.items()} == {
        "train": 4,
        "valid": 2,
        "test": 2,
    }


def test_all_targets_by_default_and_musdb_path(hq, tmp_path, monkeypatch):
    monkeypatch.setenv("MUSDB_PATH", str(hq))
    assert run() == 0
    assert len(manifest(tmp_path / "data" / "musdb18stereo")["files"]) == 20


@pytest.mark.parametrize("pad", [False, True])
def test_clips(hq, tmp_path, pad):
    # 3000 frames do not divide 7000: two clips and 1000 frames.
    out = tmp_path / "out"
    args = ("--root", hq, "--out", out, "--targets", "bass", "--clip-seconds", 3000 / 44100)
    assert run(*args, *(["--pad"] if pad else [])) == 0
    clips = [f for f in manifest(out)["files"] if f["split"] == "test"]
    assert [f["path"] for f in clips] == [f"test/Z - Last_bass_{n:03d}.wav" for n in range(3 if pad else 2)]
    assert [f["start_frame"] for f in clips] == [0, 3000, 6000][: len(clips)]
    assert all(f["frames"] == 3000 for f in clips)
    joined = np.concatenate([read_pcm(out / f["path"])[0] for f in clips])
    source = noise(32)
    np.testing.assert_array_equal(joined[:FRAMES], source[: len(joined)])
    if pad:
        assert not joined[FRAMES:].any()
        assert [f["pad_frames"] for f in clips] == [0, 0, 2000]


@given(first=st.integers(0, 50), frames=st.integers(0, 2000), length=st.integers(1, 300), pad=st.booleans())
@settings(max_examples=60, deadline=None)
def test_clips_tile_a_track(first, frames, length, pad):
    clips = list(prepare._clips(first, first + frames, {"clip_frames": length, "pad": pad}))
    assert [start for _, start, _, _ in clips] == list(range(first, first + len(clips) * length, length))
    assert all(n + zeros == length and n > 0 for _, _, n, zeros in clips)
    covered = sum(n for _, _, n, _ in clips)
    assert covered == (frames if pad else frames - frames % length)
    names = [name for name, _, _, _ in clips]
    assert names == sorted(set(names))


@given(seed=st.integers(0, 1000), channels=st.sampled_from([1, 2]))
@settings(max_examples=20, deadline=None)
def test_side_mid_ratio(seed, channels):
    pcm = noise(seed, 50, channels)
    measured = prepare.measure(pcm)
    wide = pcm.astype(np.float64)
    mid = wide.mean(axis=1)
    side = ((wide - mid[:, None]) ** 2).mean(axis=1)
    assert measured["side_mid_ratio"] == pytest.approx(side.sum() / (mid**2).sum(), abs=1e-12)


def test_measure_of_silence_and_full_scale():
    left_only = np.array([[-32768, 0]], np.int16)
    assert prepare.measure(left_only) == {"channels": 2, "peak": 1.0, "side_mid_ratio": 1.0}
    opposite = np.array([[5, -5]], np.int16)
    assert prepare.measure(opposite)["side_mid_ratio"] is None
    assert prepare.measure(np.zeros((9, 2), np.int16))["side_mid_ratio"] is None


def test_sample_has_all_splits(tmp_path):
    assert main(["--sample"]) == 0
    out = tmp_path / "data" / "sample"
    files = manifest(out)["files"]
    assert [f["split"] for f in files] == ["train", "valid", "test"]
    assert {f["target"] for f in files} == {"mixture"}
    assert files[0]["frames"] == pytest.approx(4 * files[1]["frames"], abs=6)
    assert sum(f["clipped"] for f in files) > 0
    assert all(f["channels"] == 2 and 0 < f["side_mid_ratio"] < 1 for f in files)
    assert str(tmp_path) not in (out / "manifest.json").read_text()
    starts = [(f["start_frame"], f["start_frame"] + f["frames"]) for f in files]
    assert starts[0][1] == starts[1][0]
    assert starts[1][1] == starts[2][0]


def test_mono_sample_is_each_channel(tmp_path):
    assert main(["--sample", "--targets", "vocals"]) == 0
    assert main(["--sample", "--targets", "vocals"], split_channels=True) == 0
    stereo, mono = tmp_path / "data" / "sample", tmp_path / "data" / "sample-mono"
    records = {f["path"]: f for f in manifest(mono)["files"]}
    for f in manifest(stereo)["files"]:
        both = read_pcm(stereo / f["path"])[0]
        names = [f["path"].replace(".wav", f"_ch{c}.wav") for c in (0, 1)]
        assert sum(records[name]["clipped"] for name in names) == f["clipped"]
        for c, name in enumerate(names):
            np.testing.assert_array_equal(read_pcm(mono / name)[0], both[:, c : c + 1])
            assert (records[name]["channel"], records[name]["channels"]) == (c, 1)


def test_mono_from_a_prepared_folder_is_mono_from_musdb(hq, tmp_path):
    stereo, direct, via = tmp_path / "stereo", tmp_path / "direct", tmp_path / "via"
    options = ("--targets", "mixture,bass")
    assert run("--root", hq, "--out", stereo, *options) == 0
    assert run("--root", hq, "--out", direct, *options, split_channels=True) == 0
    assert run("--root", stereo, "--out", via, split_channels=True) == 0
    sounds = [{k: v for k, v in tree(folder).items() if k.endswith(".wav")} for folder in (direct, via)]
    assert sounds[0] == sounds[1]
    assert len(sounds[0]) == 16


def test_a_second_run_writes_nothing_and_mends_what_is_damaged(hq, tmp_path, capsys):
    out = tmp_path / "out"
    args = ("--root", hq, "--out", out, "--targets", "mixture", "--clip-seconds", 0.05)
    assert run(*args) == 0
    first = tree(out)
    stamps = {p: p.stat().st_mtime_ns for p in out.rglob("*.wav")}
    damaged, gone = sorted(stamps)[0], sorted(stamps)[-1]
    capsys.readouterr()
    assert run(*args) == 0
    assert "0 files written, 12 kept" in capsys.readouterr().err
    data = bytearray(damaged.read_bytes())
    data[-1] ^= 1
    damaged.write_bytes(data)
    gone.unlink()
    assert run(*args) == 0
    assert "2 files written, 10 kept" in capsys.readouterr().err
    assert tree(out) == first
    assert all(p.stat().st_mtime_ns == t for p, t in stamps.items() if p not in (damaged, gone))


def test_a_changed_source_is_written_again(hq, tmp_path, capsys):
    out = tmp_path / "out"
    args = ("--root", hq, "--out", out, "--targets", "drums")
    assert run(*args) == 0
    write_pcm(hq / "test/Z - Last/drums.wav", noise(99, 8000), 44100)
    assert run(*args) == 0
    assert "1 files written, 3 kept" in capsys.readouterr().err
    np.testing.assert_array_equal(read_pcm(out / "test/Z - Last_drums.wav")[0], noise(99, 8000))


def test_manifest_is_the_same_everywhere(hq, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(hq, elsewhere)
    for root, out in ((hq, tmp_path / "one"), (elsewhere, tmp_path / "two")):
        assert run("--root", root, "--out", out, "--clip-seconds", 0.04, "--pad") == 0
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


@pytest.mark.parametrize("name", ["musdb18stereo", "musdb18mono"])
def test_doors(name, monkeypatch, tmp_path):
    door = Path(__file__).parents[3] / "preprocess" / f"{name}_wav.py"
    monkeypatch.setattr(sys, "argv", [str(door), "--sample", "--out", "out"])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(door), run_name="__main__")
    assert caught.value.code == 0
    assert len(manifest(tmp_path / "out")["files"]) == (6 if "mono" in name else 3)
    assert len(door.read_text().splitlines()) < 15


@pytest.mark.slow
def test_processes_give_the_same_folder(hq, tmp_path):
    for jobs in (1, 2):
        assert not prepare_musdb(hq, tmp_path / str(jobs), clip_seconds=0.05, jobs=jobs).failures
    assert tree(tmp_path / "1") == tree(tmp_path / "2")
