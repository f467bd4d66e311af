"""Tracks of MUSDB folders, the stem sample and prepared folders; `data/sources.py`."""

import sys

import numpy as np
import pytest

from stereo_sashimi.audio.io import write_pcm
from stereo_sashimi.data.corpora import sources
from stereo_sashimi.data.corpora.sources import TARGETS, SourceError


def make_track(folder, frames=1000, rate=44100, channels=2, targets=TARGETS):
    folder.mkdir(parents=True)
    for n, target in enumerate(targets):
        write_pcm(folder / f"{target}.wav", np.full((frames, channels), n, np.int16), rate)


@pytest.fixture
def hq(tmp_path):
    root = tmp_path / "hq"
    for name in ("A Band - One", "ANiMAL - Rockshow"):
        make_track(root / "train" / name)
    make_track(root / "test" / "Zoë - Ünder 水")
    (root / "train" / ".hidden").mkdir()
    return root


def test_validation_tracks_are_the_official_fourteen():
    names = sources.validation_tracks()
    assert len(names) == 14
    assert "Young Griffo - Pennies" in names
    assert "musdb" not in sys.modules


def test_hq_tracks(hq):
    kind, tracks = sources.list_tracks(hq, ("mixture", "bass"))
    assert kind == "musdb18hq"
    assert [(t[0].track, t[0].split) for t in tracks] == [
        ("A Band - One", "train"),
        ("ANiMAL - Rockshow", "valid"),
        ("Zoë - Ünder 水", "test"),
    ]
    bass = tracks[2][1]
    assert (bass.stem, bass.label, bass.stream) == ("Zoë - Ünder 水_bass", "test/Zoë - Ünder 水/bass.wav", None)
    recording = sources.open_source(bass)
    assert (recording.first, recording.last, recording.decoder) == (0, 1000, "soundfile")
    pcm, clipped = recording.read(10, 20)
    assert pcm.shape == (20, 2)
    assert (pcm == TARGETS.index("bass")).all()
    assert clipped == [0, 0]


def test_a_name_is_a_validation_track_only_in_train(tmp_path):
    make_track(tmp_path / "test" / "ANiMAL - Rockshow")
    (tmp_path / "train").mkdir()
    assert sources.list_tracks(tmp_path, TARGETS)[1][0][0].split == "test"


def test_stem_tracks_have_five_streams_in_order(tmp_path):
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
    (tmp_path / "train" / "Meaxic - Take A Step.stem.mp4").touch()
    kind, tracks = sources.list_tracks(tmp_path, None)
    assert kind == "musdb18"
    assert [(s.target, s.stream) for s in tracks[0]] == list(zip(TARGETS, range(5), strict=True))
    assert tracks[0][0].split == "valid"
    assert tracks[0][0].track == "Meaxic - Take A Step"


def test_roots_that_are_not_musdb(tmp_path, hq):
    with pytest.raises(SourceError, match=r"there is no such folder\..*run without --root"):
        sources.list_tracks(tmp_path / "MUSDB18-HQ", TARGETS)
    with pytest.raises(SourceError, match=r"no folder train/"):
        sources.list_tracks(tmp_path, TARGETS)
    (tmp_path / "train").mkdir()
    with pytest.raises(SourceError, match=r"no folder test/"):
        sources.list_tracks(tmp_path, TARGETS)
    (tmp_path / "test").mkdir()
    with pytest.raises(SourceError, match="neither"):
        sources.list_tracks(tmp_path, TARGETS)
    (hq / "test" / "x.stem.mp4").touch()
    with pytest.raises(SourceError, match="both"):
        sources.list_tracks(hq, TARGETS)


@pytest.mark.parametrize("text", ["", "[]", '{"files": [{}]}', '{"files": 3}'])
def test_foreign_manifest(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(SourceError, match=r"manifest\.json: not the manifest"):
        sources.list_tracks(tmp_path, None)


def test_targets_are_checked_and_ordered():
    assert sources.check_targets(["vocals", "mixture", "vocals"]) == ("mixture", "vocals")
    with pytest.raises(SourceError, match=r"unknown target 'kazoo'.*mixture,drums"):
        sources.check_targets(["mixture", "kazoo"])
    with pytest.raises(SourceError, match="no target"):
        sources.check_targets([])


def test_file_names_are_clean_and_never_meet(tmp_path):
    names = ["a:b", "a_b", "A?B", "..dots..", "x" * 250, "x" * 249, "水" * 80]
    for name in names:
        (tmp_path / "train" / name).mkdir(parents=True)
    (tmp_path / "test").mkdir()
    tracks = sources.list_tracks(tmp_path, ("mixture",))[1]
    stems = {t[0].track: t[0].stem for t in tracks}
    # The hidden folder "..dots.." is not a track.
    assert set(stems) == set(names) - {"..dots.."}
    assert len({stem.casefold() for stem in stems.values()}) == len(stems)
    for stem in stems.values():
        assert len(f".{stem}_000_ch0.wav".encode()) <= 255
        assert not set(stem) & set('/\\:*?"<>|')
    assert stems["水" * 80].startswith("水" * 66)


@pytest.mark.parametrize(("channels", "rate"), [(1, 44100), (2, 48000)])
def test_other_formats_are_refused(tmp_path, channels, rate):
    make_track(tmp_path / "test" / "t", channels=channels, rate=rate)
    (tmp_path / "train").mkdir()
    source = sources.list_tracks(tmp_path, ("drums",))[1][0][0]
    with pytest.raises(SourceError, match=r"t.drums\.wav: .*must be stereo at 44100 Hz"):
        sources.open_source(source)


def test_stem_peaks_are_clipped_and_counted():
    source = sources.sample_tracks(("mixture",))[2][0]
    recording = sources.open_source(source)
    samples, _ = sources.decode_stem(source.path, 0)
    used = np.rint(samples[recording.first : recording.last].astype(np.float64) * 32768)
    pcm, clipped = recording.read(recording.first, recording.last - recording.first)
    assert recording.decoder == "pyav"
    assert clipped == np.count_nonzero((used > 32767) | (used < -32768), axis=0).tolist()
    assert sum(clipped) > 0
    np.testing.assert_array_equal(pcm, np.clip(used, -32768, 32767))


def test_streams_of_the_sample_differ_and_sum_to_the_mixture():
    stems = [sources.decode_stem(sources.sample_path(), k)[0][:44100] for k in range(5)]
    mixture, parts = stems[0], stems[1:]
    residual = np.abs(mixture - sum(parts)).mean() / np.abs(mixture).mean()
    assert residual < 0.2
    assert all(np.abs(mixture - part).mean() > 0.1 * np.abs(mixture).mean() for part in parts)


@pytest.mark.parametrize("keep", [0, 0.001, 0.3, 0.9])
def test_truncated_stem(tmp_path, keep):
    path = tmp_path / "cut.stem.mp4"
    data = sources.sample_path().read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(SourceError, match=r"cut\.stem\.mp4: the stem file .*Fetch it again"):
        sources.decode_stem(path, 4)


def test_no_decoder(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(SourceError, match=r"pip install 'stereo-sashimi\[stems\]'"):
        sources.decode_stem(sources.sample_path(), 0)


def test_missing_package(monkeypatch):
    def absent(name):
        raise sources.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(sources.importlib.metadata, "distribution", absent)
    with pytest.raises(SourceError, match=r"stempeg is not installed.\n  pip install"):
        sources.sample_path()
    with pytest.raises(SourceError, match="musdb is not installed"):
        sources.validation_tracks()
