"""The page of an evaluation needs nothing but itself, says the numbers of its JSON, and plays what was evaluated."""

import base64
import hashlib
import io
import math
import re

import numpy as np
import pytest
import soundfile
from html_tables import Page
from PIL import Image

from stereo_sashimi.audio.io import read_pcm, write_pcm
from stereo_sashimi.commands.evaluate.page import write_page
from stereo_sashimi.commands.evaluate.recordings import Conversions, Track, tracks
from stereo_sashimi.metrics.distances import compare
from stereo_sashimi.metrics.totals import TrackResult, channel_labels, pooled
from stereo_sashimi.spec import AudioSpec

RATE = 8000
NAMES = ("long.wav", "short.flac")
CODERS = ("flac -8", "wavpack -hhx6", "flac -8, no mid/side")
AWKWARD = "<img src=x onerror=alert(1)> & \"two\" 'one' Ünï \udcff.wav"


def evaluation_of(files, channels=2, scored=None) -> dict:
    """An evaluation of some files, with bits that are made up."""
    generator, tracks = np.random.default_rng(0), []
    for name, file in files.items():
        pcm, _ = read_pcm(file, 0, scored)
        lengths = np.diff(np.append(np.arange(0, len(pcm), RATE), len(pcm)))
        bits = lengths[:, None] * generator.uniform(3, 6, (len(lengths), channels))
        nats = bits.sum(axis=0) * math.log(2)
        contexts = {"carried": {"channel_nats": list(nats)}, "4000": {"channel_nats": list(nats * 1.25)}}
        independent = {"channel_nats": list(nats * [1.0, 1.5])} if channels == 2 else None
        lossless = {coder: round(float(bits.sum()) * f) for coder, f in zip(CODERS, (1.3, 0.9, 1.4), strict=True)}
        pcm_facts = hashlib.sha256(pcm.data).hexdigest(), len(pcm), RATE, channels
        tracks.append(TrackResult(name, *pcm_facts, contexts, independent, bits.tolist(), lossless))
    spec = AudioSpec(RATE, channels, 16)
    totals = pooled(tracks, spec, channel_labels(spec, "autoregressive"))
    for context in totals["contexts"].values():
        context["interval"] = [context["bits_per_sample"] - 0.5, context["bits_per_sample"] + 0.25]
    if channels == 2:
        totals["cross_channel_gain"]["interval"] = [0.125, 2.0]
    return {
        "package_version": "1.2.3", "generated": None, "converted": {}, "contexts": ["carried", "4000"],
        "spec": spec.to_dict(),
        "checkpoint": "runs/a/best.ckpt", "checkpoint_independent": "runs/b/best.ckpt", "model_sha256": "ab" * 32,
        "model": {"pool": [4, 4], "decoder": {"coupling": "autoregressive"}},
        "tracks": [vars(track) for track in tracks], "pooled": totals,
    }  # fmt: skip


def page_of(evaluation, files, path) -> Page:
    """Write the page of an evaluation of some files, and read it."""
    sources = {t["file"]: Track(t["file"], files[t["file"]], t["frames"], t["sha256"]) for t in evaluation["tracks"]}
    write_page(evaluation, sources, path)
    return Page(path)


def noise(path, frames, channels=2):
    pcm = np.random.default_rng(frames).integers(-3000, 3000, (frames, channels)).astype(np.int16)
    soundfile.write(path, pcm, RATE)
    return pcm


def heard(player) -> np.ndarray:
    """What a player of the page plays; checks that it is 16-bit FLAC at RATE."""
    with soundfile.SoundFile(io.BytesIO(base64.b64decode(player["src"].partition(",")[2]))) as file:
        assert (file.format, file.subtype, file.samplerate) == ("FLAC", "PCM_16", RATE)
        return file.read(dtype="int16")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Files of 12.25 s and 2 s, their PCM, the evaluation and its page."""
    folder = tmp_path_factory.mktemp("page")
    files = {name: folder / name for name in NAMES}
    pcm = {name: noise(files[name], frames) for name, frames in zip(NAMES, (98_000, 16_000), strict=True)}
    evaluation = evaluation_of(files)
    page = page_of(evaluation, files, folder / "page.html")
    assert sorted(path.name for path in folder.iterdir()) == sorted([*NAMES, "page.html"])
    return evaluation, files, pcm, folder / "page.html", page


def test_nothing_is_fetched_and_nothing_runs(made):
    text, page = made[3].read_text(encoding="utf-8"), made[4]
    assert not re.search(r"https?://|url\(|@import", text)
    assert not {"script", "iframe", "object", "embed", "base", "source"} & {name for name, _ in page.tags}
    ids = {attributes.get("id") for _, attributes in page.tags}
    for name, attributes in page.tags:
        assert not any(key.startswith("on") or key == "srcset" for key in attributes)
        if "src" in attributes:
            assert re.match(r"data:(image/(png|webp)|audio/flac);base64,", attributes["src"])
        if "href" in attributes:
            inner = name == "a" and attributes["href"][0] == "#" and attributes["href"][1:] in ids
            assert inner or attributes["href"] == "data:,"
    (policy,) = [meta["content"] for meta in page.of("meta") if "http-equiv" in meta]
    assert policy.startswith("default-src 'none';")
    assert "prefers-color-scheme: dark" in text


def test_pictures_say_what_they_show_and_players_hold_the_pcm_of_the_middle(made):
    _, _, pcm, _, page = made
    for image, name in zip(page.of("img"), np.repeat(NAMES, 2), strict=True):
        assert name in image["alt"]
        picture = Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2])))
        picture.load()
        assert picture.size[0] == 1430
    for player, name, start in zip(page.of("audio"), NAMES, (9000, 0), strict=True):
        assert "controls" in player
        np.testing.assert_array_equal(heard(player), pcm[name][start : start + 80_000])
    assert "1.12 s to 11.12 s of 12.25 s (frames 9,000 to 89,000)" in page.text
    assert "Excerpt: the whole track, 2.00 s." in page.text


def test_the_tables_have_the_numbers_of_the_evaluation(made):
    evaluation, _, _, path, page = made
    pooled_rows, gain, contexts, per_track = page.tables
    tracks, totals, dash = evaluation["tracks"], evaluation["pooled"], "\N{EN DASH}"
    carried, longer = (totals["contexts"][name] for name in evaluation["contexts"])
    flac, wavpack = (totals["lossless"][coder] for coder in CODERS[:2])

    def row(label, entry):
        bits, span = entry["bits_per_sample"], entry["interval"]
        around = f"{span[0]:.3f} to {span[1]:.3f}" if span else dash
        channels = [f"{bits:.3f}" for bits in entry.get("channels", {}).values()] or [dash, dash]
        return [label, f"{bits:.3f}", around, f"{bits / 2:.3f}", *channels]

    assert pooled_rows == [
        ["", "bits/sample", "95 % interval", "bits/byte", "left", "right | left"],
        row("model, state carried", carried),
        row("model, segments of 4,000 frames (0.5 s)", longer),
        row(CODERS[0], flac),
        [f"*{cell}*" for cell in row(CODERS[1], wavpack)],
    ]
    together = np.array(list(carried["channels"].values()))
    alone = together * [1.0, 1.5]
    saved = alone - together
    assert gain == [
        ["", "bits/sample", "95 % interval", "left", "right"],
        ["channels coupled", f"{together.mean():.3f}", dash, *(f"{x:.3f}" for x in together)],
        ["channels independent", f"{alone.mean():.3f}", dash, *(f"{x:.3f}" for x in alone)],
        [f"*{c}*" for c in ("gain", f"{saved.mean():+.3f}", "+0.125 to +2.000", *(f"{x:+.3f}" for x in saved))],
    ]
    assert contexts[1:] == [
        ["state carried", f"{together.mean():.3f}", dash],
        ["segments of 4,000 frames (0.5 s)", f"{1.25 * together.mean():.3f}", f"{together.mean() / 4:+.3f}"],
    ]
    assert per_track[0] == ["track", "seconds", "model", *CODERS[:2]]
    assert CODERS[2] not in page.text
    for cells, seconds, track in zip(per_track[1:3], ("12.25", "2.00"), tracks, strict=True):
        bits = [sum(track["contexts"]["carried"]["channel_nats"]) / math.log(2), *list(track["lossless"].values())[:2]]
        model, first, second = (f"{value / 2 / track['frames']:.3f}" for value in bits)
        assert cells == [track["file"], seconds, model, first, f"*{second}*"]
    model, first, second = (f"{entry['bits_per_sample']:.3f}" for entry in (carried, flac, wavpack))
    assert per_track[3:] == [["all tracks", "14.25", model, first, f"*{second}*"]]
    facts = ("2 tracks, 14.25 s, 114,000 frames", "8,000 Hz, stereo, 16 bit linear, normalize none", "version 1.2.3")
    for words in (*facts, "Evaluation of runs/a/best.ckpt", "runs/b/best.ckpt", "ab" * 32, "decoder.coupling", "4, 4"):
        assert words in page.text
    assert path.stat().st_size - sum(len(player["src"]) for player in page.of("audio")) < 2 * 350_000


def test_whose_bits_they_are(made, tmp_path, monkeypatch):
    monkeypatch.setattr("stereo_sashimi.commands.evaluate.page.MOST_PICTURED", 0)
    for spec, words in (
        ({"bits": 8}, "Bits are those of the top byte of each 16-bit sample"),
        ({"bits": 8, "quantization": "mu-law"}, "Bits are those of the model's codes (mu-law, normalize none)"),
        ({}, "16 bit linear"),
    ):
        text = page_of(made[0] | {"spec": made[0]["spec"] | spec}, made[1], tmp_path / "page.html").text
        assert words in text
        assert ("Bits are those" in text) == bool(spec)


def test_names_are_text_and_not_markup(tmp_path):
    noise(tmp_path / "a.wav", 4000)
    evaluation = evaluation_of({AWKWARD: tmp_path / "a.wav"})
    evaluation["checkpoint"] = "<script>a & b</script>"
    evaluation["model"] = {"<b>": {"<i>": "<u>"}}
    page = page_of(evaluation, {AWKWARD: tmp_path / "a.wav"}, tmp_path / "page.html")
    assert not {"script", "b", "i", "u"} & {name for name, _ in page.tags}
    shown = AWKWARD.replace("\udcff", r"\udcff")
    assert [shown in image["alt"] for image in page.of("img")] == [True, True]
    assert page.text.count(shown) == 2
    assert "Evaluation of <script>a & b</script>" in page.text


CHANGED = "has changed since it was evaluated"
HARMS = {
    "gone": (lambda files, name: files[name].unlink(), "gone.wav: there is no such file."),
    "changed": (lambda files, name: noise(files[name], 9001), CHANGED),
    "shorter": (lambda files, name: noise(files[name], 8999), "but the file has 8999 frames"),
    "mono": (
        lambda files, name: write_pcm(files[name], read_pcm(files[name])[0].reshape(-1, 1), RATE),
        "has 1 channel, the model 2",
    ),
    "damaged": (lambda files, name: files[name].write_bytes(b"no audio"), "not an audio file"),
    "whole": (lambda files, name: None, "the whole track"),
}


def test_a_lost_file_is_said_in_its_place(tmp_path):
    files = {name: tmp_path / f"{name}.wav" for name in HARMS}
    for file in files.values():
        noise(file, 9000)
    evaluation = evaluation_of(files)
    for name, (harm, _) in HARMS.items():
        harm(files, name)
    page_of(evaluation, files, tmp_path / "page.html")
    articles = (tmp_path / "page.html").read_text(encoding="utf-8").split("<article")[1:]
    for (name, (_, words)), article in zip(HARMS.items(), articles, strict=True):
        assert words in article
        found = [article.count(word) for word in ("<img", "<audio", "problem")]
        assert found == ([2, 1, 0] if name == "whole" else [1, 0, 1])


def test_players_have_what_was_scored_of_the_beginning_and_after_conversions(tmp_path, monkeypatch):
    monkeypatch.setattr("stereo_sashimi.commands.evaluate.page.EXCERPT_SECONDS", 1)
    files, spec = {suffix: tmp_path / f"a.{suffix}" for suffix in ("wav", "flac", "ogg")}, AudioSpec(RATE, 2, 16)
    for file in files.values():
        noise(file, 30_000)
    page = page_of(evaluation_of(files, scored=24_000), files, tmp_path / "page.html")
    assert page.text.count("1.00 s to 2.00 s of 3.00 s (frames 8,000 to 16,000)") == 3
    for player, file in zip(page.of("audio"), files.values(), strict=True):
        np.testing.assert_array_equal(heard(player), read_pcm(file)[0][8000:16_000])
    fast = tmp_path / "fast.wav"
    soundfile.write(fast, np.random.default_rng(0).normal(0, 0.1, 5000), 2 * RATE, subtype="PCM_24")
    (track,) = tracks({"fast": fast}, spec, None, Conversions(resample=True, requantize=True, upmix=True))
    soundfile.write(tmp_path / "scored.wav", track.read(spec), RATE)
    evaluation = evaluation_of({"fast": tmp_path / "scored.wav"}) | {"converted": dict.fromkeys(track.converted, 1)}
    write_page(evaluation, {"fast": track}, tmp_path / "page.html")
    page = Page(tmp_path / "page.html")
    np.testing.assert_array_equal(heard(page.of("audio")[0]), track.read(spec))
    for what in ("resampled to 8000 Hz", "rounded to 16 bits", "copied to both channels"):
        assert f"1 file {what}" in page.text


def test_mono_without_the_rest(tmp_path):
    files = {"a.wav": tmp_path / "a.wav"}
    noise(files["a.wav"], 9000, channels=1)
    evaluation = evaluation_of(files, channels=1)
    evaluation["contexts"], evaluation["checkpoint_independent"] = ["carried"], None
    evaluation["tracks"][0]["lossless"], evaluation["pooled"]["lossless"] = {}, {}
    evaluation["pooled"]["contexts"]["carried"]["interval"] = None
    page = page_of(evaluation, files, tmp_path / "page.html")
    pooled_rows, tracks = page.tables
    assert (pooled_rows[0][-1], pooled_rows[1][2]) == ("mono", "*\N{EN DASH}*")
    assert [len(row) for row in tracks] == [3, 3]
    assert re.search(r"(?s)8,000 Hz, mono.*1 track, 1\.12 s", page.text)
    assert not re.search("dashed|gain|without coupling", page.text)


def test_more_tracks_than_pictures_and_a_coder_that_lacks_one(made, tmp_path, monkeypatch):
    monkeypatch.setattr("stereo_sashimi.commands.evaluate.page.MOST_PICTURED", 1)
    evaluation, files = made[:2]
    first, second = evaluation["tracks"]
    # As `metrics.totals.pooled` leaves it out.
    totals = evaluation["pooled"] | {"lossless": {CODERS[0]: evaluation["pooled"]["lossless"][CODERS[0]]}}
    lacking = evaluation | {"tracks": [first, second | {"lossless": {CODERS[0]: 5}}], "pooled": totals}
    page = page_of(lacking, files, tmp_path / "page.html")
    assert [row[-1] == "\N{EN DASH}" for row in page.tables[-1]] == [False, False, True, True]
    assert (len(page.of("article")), len(page.of("audio")), len(page.of("a"))) == (1, 1, 1)
    assert "for the first 1 of 2 tracks" in page.text


def test_distances_have_units_meanings_and_a_picture(made, tmp_path, monkeypatch):
    monkeypatch.setattr("stereo_sashimi.commands.evaluate.page.MOST_PICTURED", 0)
    evaluation, files = made[:2]
    silent = tmp_path / "silent.wav"
    soundfile.write(silent, np.zeros((16_000, 2), np.int16), RATE)
    found = compare([silent], [files["long.wav"]])
    page = page_of(evaluation | {"generated": found}, files, tmp_path / "page.html")
    rows = {row[0]: row[1:] for row in page.tables[3]}
    assert rows[""] == ["unit", "distance", "floor", "KS", "generated", "reference"]
    assert rows.keys() == {"", *found["metrics"]}
    assert [name.split("/")[0] for name in list(rows)[-8:]] == ["coherence"] * 4 + ["phase_difference"] * 4
    metric, dash = found["metrics"]["loudness_lufs"], "\N{EN DASH}"
    assert rows["loudness_lufs"][:5] == ["LUFS", dash, f"{metric['floor']:.3g}", dash, dash]
    low, high = metric["reference"]["quartiles"]
    assert rows["loudness_lufs"][5] == f"{metric['reference']['median']:.3g} ({low:.3g} to {high:.3g})"
    assert rows["silent_share"][:2] == ["of 1", f"{found['metrics']['silent_share']['distance']:.3g}"]
    words = ("2 windows of 1 generated file, 12 windows of 1 reference file", "1 LUFS is 1 dB", "-1 inverted")
    assert all(word in page.text for word in words)
    assert [image["alt"][:21] for image in page.of("img")] == ["Medians and quartiles"]
