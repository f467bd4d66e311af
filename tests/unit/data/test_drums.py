"""preprocess/drums.py: MIDI files of single hits, played by a program that takes the place of FluidSynth."""

from pathlib import Path

import numpy as np
import pytest
from soundfonts import soundfont

from stereo_sashimi.audio.io import probe, read_pcm, write_pcm
from stereo_sashimi.data.corpora import drums
from stereo_sashimi.data.corpora.drums import FRAMES, KEYS, RATE, hit, hits, main


def notes(midi: bytes) -> list[tuple[int, int, int]]:
    """(milliseconds, key, velocity) of a MIDI file of one track that has no running status."""
    assert midi[:14] == b"MThd" + bytes([0, 0, 0, 6, 0, 0, 0, 1, 1, 0xF4])
    assert int.from_bytes(midi[18:22], "big") == len(midi) - 22
    at, time, found = 22, 0, []
    while midi[at + 1 : at + 3] != bytes([0xFF, 0x2F]):
        delay = 0
        while midi[at] & 0x80:
            delay, at = (delay << 7) + (midi[at] & 0x7F), at + 1
        time += (delay << 7) + midi[at]
        status = midi[at + 1]
        if status == 0x99:
            found.append((time, midi[at + 2], midi[at + 3]))
        at += 3 if status == 0xC9 else 4
    return found


def test_each_key_is_played_by_itself():
    assert notes(hits(8, 100)) == [(2000 * i, key, 100) for i, key in enumerate(KEYS)]


def test_a_hit_begins_at_its_onset_and_is_as_loud_as_can_be():
    pcm = np.zeros((44100 * 2, 2), np.int16)
    pcm[22050:] = np.array([1000, -500])
    found = hit(pcm, 44100)
    assert found.shape == (FRAMES, 2)
    assert round(0.95 * 32768) == found[:100].max() == np.abs(found).max()
    # The edge rings; behind it the level and the balance are even.
    assert np.ptp(found[2000 : FRAMES - 1100], axis=0).max() <= 2
    assert found[2000, 1] == pytest.approx(-found[2000, 0] / 2, abs=2)
    assert not found[-1].any()
    assert np.array_equal(hit(pcm[:40000], 44100)[14000:], np.zeros((FRAMES - 14000, 2)))
    assert hit(np.zeros((100, 2), np.int16), 44100) is None
    # At a higher speed it ends sooner.
    end, sooner = (int(np.flatnonzero(hit(pcm[:40000], 44100 * speed)).max()) // 2 for speed in (1.0, 1.15))
    assert sooner == pytest.approx(end / 1.15, rel=0.01)


@pytest.fixture
def inputs(tmp_path, monkeypatch) -> list[str]:
    """Recorded drums, a soundfont, and a FluidSynth that for every key and program plays another length and balance."""
    (tmp_path / "sounds").mkdir()
    rng = np.random.default_rng(0)
    recorded = [(f"bd_{number}", 1 + number % 2) for number in range(9)]
    for name, channels in (*recorded, ("loop_y", 2), ("drum_roll", 2)):
        write_pcm(
            tmp_path / f"sounds/{name}.flac", (rng.standard_normal((9000, channels)) * 9999).astype(np.int16), 44100
        )
    # Four kits, which share all recordings but for one key of the second.
    every = [((key, key), (0, 127), key) for key in KEYS]
    kits = {(128, program): every for program in (0, 70, 80, 90)}
    kits[128, 70] = [*every[:-1], ((KEYS[-1], KEYS[-1]), (0, 127), 99)]
    (tmp_path / "font.sf2").write_bytes(soundfont(kits))
    (tmp_path / "bin").mkdir()
    player = tmp_path / "bin/fluidsynth"
    player.write_text(
        "#!/usr/bin/env python3\nimport sys\nprogram = open(sys.argv[-1], 'rb').read()[24]\n"
        "for key in range(99):\n    one = bytes([0, 99, 0, program]) * (1000 + 9 * key)\n"
        "    sys.stdout.buffer.write(one + bytes(8 * 44100 - len(one)))\n"
    )
    player.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    monkeypatch.chdir(tmp_path)
    return ["--root", "sounds", "--soundfont", "font.sf2"]


def test_recordings_are_split_and_none_outweighs_the_others(inputs, monkeypatch, capsys):
    monkeypatch.setattr(drums, "KITS", {"a": 0, "b": 70, "c": 80, "d": 90})
    monkeypatch.setattr(drums, "VELOCITIES", (127, 100))
    assert main(inputs) == 0
    files = {split: {path.stem for path in Path("data/drums", split).iterdir()} for split in ("train", "valid", "test")}
    # The 4th and the 8th of eight recorded drums and of eight keys are held out; all velocities sound the same. Three
    # hits of a recording are taken: the fourth kit is left out, but where the second has a recording of its own.
    own = f"b_{KEYS[-1]}_127"
    kept = {place: {f"{kit}_{key}_127" for kit in "abc" for key in KEYS[place::8]} for place in range(8)}
    assert files["valid"] == kept[3] | {"bd_3"}
    assert files["test"] == kept[7] | {"bd_7", own}
    natural = {f"bd_{number}" for number in range(9)}.union(*kept.values(), {f"d_{KEYS[-1]}_127"})
    train = natural - files["valid"] - files["test"]
    assert files["train"] == {name + speed for name in train for speed in ("", "_slower", "_slow", "_fast", "_faster")}
    counts = ", ".join(f"{len(names)} {split}" for split, names in files.items())
    assert capsys.readouterr().err == f"data/drums: {counts}\n"
    for path in Path("data/drums").rglob("*.flac"):
        info = probe(path)
        assert (info.sample_rate, info.n_channels, info.frames) == (RATE, 2, FRAMES)
        assert np.abs(read_pcm(path)[0][:5000]).max() > 29000
    assert not list(Path("data/drums").glob(".*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--soundfont", "absent.sf2"], "error: there is no soundfont absent.sf2"),
        (["--root", "bin"], "error: bin has no drums"),
        (["--root", "absent"], "error: absent has no drums"),
    ],
)
def test_what_is_missing_is_said(inputs, capsys, options, message):
    assert main([*inputs, *options]) == 1
    assert message in capsys.readouterr().err
    assert not Path("data").exists()
