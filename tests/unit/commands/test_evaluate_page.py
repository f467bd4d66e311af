"""The page of an evaluation needs nothing but itself, says the numbers of its JSON, and plays what was evaluated."""

import base64
import hashlib
import io
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import soundfile

from stereo_sashimi.audio.io import read_pcm, write_pcm
from stereo_sashimi.commands.evaluate.page import generated_tables, write_page

RATE = 8000
NAMES = ("long.wav", "short.flac")
CODERS = ("flac -8", "wavpack -hhx6")
AWKWARD = "<img src=x onerror=alert(1)> & \"two\" 'one' Ünï \udcff.wav"


class Page(HTMLParser):
    """Tags with their attributes, and the cells of each table, as text; bold cells stand between stars."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.tables: list[list[list[str]]] = []
        self.text, self.in_cell = "", False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.in_cell = True
        elif tag == "strong":
            self.handle_data("*")

    def handle_endtag(self, tag):
        if tag == "strong":
            self.handle_data("*")
        elif tag in ("td", "th"):
            self.in_cell = False

    def handle_data(self, data):
        self.text += data
        if self.in_cell:
            self.tables[-1][-1][-1] += data.strip()

    def of(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def read_page(path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def bits_of(tracks, channel_bits) -> np.ndarray:
    """Bits/sample of each channel, total over total."""
    return np.sum(channel_bits, axis=0) / sum(track["frames"] for track in tracks)


def evaluation_of(files, channels=2, scored=None) -> dict:
    """An evaluation of some files, its pooled numbers from the nats of its tracks."""
    generator = np.random.default_rng(0)
    tracks = []
    for name, file in files.items():
        pcm, _ = read_pcm(file, 0, scored)
        frames, rate = len(pcm), RATE
        lengths = np.diff(np.append(np.arange(0, frames, rate), frames))
        bits = lengths[:, None] * generator.uniform(3, 6, (len(lengths), channels))
        nats = bits.sum(axis=0) * math.log(2)
        tracks.append({
            "file": name, "sha256": hashlib.sha256(pcm.data).hexdigest(),
            "frames": frames, "sample_rate": rate, "n_channels": channels,
            "contexts": {"carried": {"channel_nats": list(nats)}, "4000": {"channel_nats": list(nats * 1.25)}},
            "independent": {"channel_nats": list(nats * [1.0, 1.5][:channels])},
            "bits_each_second": bits.tolist(),
            "lossless": {coder: round(float(bits.sum()) * f) for coder, f in zip(CODERS, (1.3, 0.9), strict=True)},
        })  # fmt: skip
    names = ("left", "right | left") if channels == 2 else ("mono",)
    contexts = {}
    for context in ("carried", "4000"):
        each = bits_of(tracks, [np.divide(t["contexts"][context]["channel_nats"], math.log(2)) for t in tracks])
        contexts[context] = {
            "bits_per_sample": each.mean(), "bpb": each.mean() / 2, "interval": [each.mean() - 0.5, each.mean() + 0.25],
            "channels": dict(zip(names, each, strict=True)),
        }  # fmt: skip
    samples = sum(track["frames"] * channels for track in tracks)
    lossless = {
        coder: {"bits_per_sample": sum(t["lossless"][coder] for t in tracks) / samples, "interval": None}
        for coder in CODERS
    }
    alone = bits_of(tracks, [np.divide(t["independent"]["channel_nats"], math.log(2)) for t in tracks])
    gain = {"bits_per_sample": alone.mean() - contexts["carried"]["bits_per_sample"], "interval": [0.125, 2.0]}
    return {
        "format": "stereo-sashimi evaluation", "version": 1, "package_version": "1.2.3",
        "checkpoint": "runs/a/best.ckpt", "checkpoint_independent": "runs/b/best.ckpt", "model_sha256": "ab" * 32,
        "spec": {"sample_rate": RATE, "n_channels": channels, "bits": 16, "quantization": "linear",
                 "normalize": "none"},
        "model": {"d_model": 64, "pool": [4, 4], "decoder": {"kind": "dml", "coupling": "autoregressive"}},
        "contexts": ["carried", "4000"], "tracks": tracks,
        "pooled": {"tracks": len(tracks), "frames": samples // channels, "contexts": contexts,
                   "cross_channel_gain": gain if channels == 2 else None, "lossless": lossless},
        "generated": None,
    }  # fmt: skip


def noise(path, frames, channels=2):
    pcm = np.random.default_rng(frames).integers(-3000, 3000, (frames, channels)).astype(np.int16)
    write_pcm(path, pcm, RATE)
    return pcm


def heard(player) -> np.ndarray:
    """What a player of the page plays; checks that it is 16-bit FLAC at RATE."""
    content = io.BytesIO(base64.b64decode(player["src"].partition(",")[2]))
    info = soundfile.info(content)
    assert (info.format, info.subtype, info.samplerate) == ("FLAC", "PCM_16", RATE)
    content.seek(0)
    return soundfile.read(content, dtype="int16")[0]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Files of 12.25 s and 2 s, their PCM, the evaluation and its page."""
    folder = tmp_path_factory.mktemp("page")
    files = {name: folder / name for name in NAMES}
    pcm = {name: noise(files[name], frames) for name, frames in zip(NAMES, (98_000, 16_000), strict=True)}
    evaluation = evaluation_of(files)
    write_page(evaluation, files, folder / "page.html")
    assert sorted(path.name for path in folder.iterdir()) == sorted([*NAMES, "page.html"])
    return evaluation, files, pcm, folder / "page.html"


@pytest.fixture
def no_pictures(monkeypatch):
    """Pages of tables only, which are made at once."""
    monkeypatch.setattr("stereo_sashimi.commands.evaluate.page.MOST_PICTURED", 0)


def test_nothing_is_fetched_and_nothing_runs(made):
    text = made[3].read_text(encoding="utf-8")
    page = Page(text)
    assert "http://" not in text
    assert "https://" not in text
    assert "url(" not in text
    assert "@import" not in text
    assert not {"script", "iframe", "object", "embed", "base", "source"} & {name for name, _ in page.tags}
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    for name, attributes in page.tags:
        assert "srcset" not in attributes
        assert not any(key.startswith("on") for key in attributes)
        if "src" in attributes:
            assert re.match(r"data:(image/(png|webp)|audio/flac);base64,", attributes["src"])
        if "href" in attributes:
            inner = name == "a" and attributes["href"][0] == "#" and attributes["href"][1:] in ids
            assert inner or attributes["href"] == "data:,"
    (policy,) = [meta["content"] for meta in page.of("meta") if "http-equiv" in meta]
    assert policy.startswith("default-src 'none';")
    assert "prefers-color-scheme: dark" in text


def test_pictures_can_be_decoded_and_say_what_they_show(made):
    from PIL import Image

    images = read_page(made[3]).of("img")
    assert len(images) == 4
    for image, name in zip(images, np.repeat(NAMES, 2), strict=True):
        assert name in image["alt"]
        picture = Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2])))
        picture.load()
        assert picture.size[0] == 1430


def test_players_hold_the_pcm_of_the_middle(made):
    _, _, pcm, path = made
    page = read_page(path)
    for player, (name, start) in zip(page.of("audio"), ((NAMES[0], 9000), (NAMES[1], 0)), strict=True):
        assert "controls" in player
        np.testing.assert_array_equal(heard(player), pcm[name][start : start + 80_000])
    assert "1.12 s to 11.12 s of 12.25 s (frames 9,000 to 89,000)" in page.text
    assert "Excerpt, 16-bit FLAC: the whole track, 2.00 s." in page.text


def test_the_tables_have_the_numbers_of_the_nats(made):
    evaluation, _, _, path = made
    pooled, gain, contexts, per_track = read_page(path).tables
    tracks = evaluation["tracks"]
    frames = sum(track["frames"] for track in tracks)

    def channels(key, chosen=tracks):
        scores = [t["independent"] if key == "independent" else t["contexts"][key] for t in chosen]
        total = sum(np.array(score["channel_nats"]) for score in scores) / math.log(2)
        return total / sum(t["frames"] for t in chosen)

    def coded(coder, chosen=tracks):
        return sum(t["lossless"][coder] for t in chosen) / sum(2 * t["frames"] for t in chosen)

    def row(label, each):
        value = each.mean()
        span = f"{value - 0.5:.3f} to {value + 0.25:.3f}"
        return [label, f"{value:.3f}", span, f"{value / 2:.3f}", *(f"{channel:.3f}" for channel in each)]

    dash = "\N{EN DASH}"
    best = coded(CODERS[1])
    assert pooled == [
        ["", "bits/sample", "95 % interval", "bits/byte", "left", "right | left"],
        row("model, state carried", channels("carried")),
        row("model, segments of 4,000 frames (0.5 s)", channels("4000")),
        [CODERS[0], f"{coded(CODERS[0]):.3f}", dash, f"{coded(CODERS[0]) / 2:.3f}", dash, dash],
        [f"*{cell}*" for cell in (CODERS[1], f"{best:.3f}", dash, f"{best / 2:.3f}", dash, dash)],
    ]
    together, alone = channels("carried"), channels("independent")
    saved = alone - together
    assert gain == [
        ["", "bits/sample", "95 % interval", "left", "right"],
        ["channels coupled", f"{together.mean():.3f}", dash, *(f"{x:.3f}" for x in together)],
        ["channels independent", f"{alone.mean():.3f}", dash, *(f"{x:.3f}" for x in alone)],
        [f"*{c}*" for c in ("gain", f"{saved.mean():+.3f}", "+0.125 to +2.000", *(f"{x:+.3f}" for x in saved))],
    ]
    longer = channels("4000").mean()
    assert contexts[1:] == [
        ["state carried", f"{together.mean():.3f}", dash],
        ["segments of 4,000 frames (0.5 s)", f"{longer:.3f}", f"{longer - together.mean():+.3f}"],
    ]
    assert per_track[0] == ["track", "seconds", "model", *CODERS]
    for cells, name, seconds, chosen in zip(
        per_track[1:], (*NAMES, "all tracks"), (12.25, 2, 14.25), (tracks[:1], tracks[1:], tracks), strict=True
    ):
        model, flac, wavpack = channels("carried", chosen).mean(), *(coded(coder, chosen) for coder in CODERS)
        assert cells == [name, f"{seconds:.2f}", f"{model:.3f}", f"{flac:.3f}", f"*{wavpack:.3f}*"]
    assert f"2 tracks, 14.25 s, {frames:,} frames" in read_page(path).text


def test_facts_and_size(made):
    page = read_page(made[3])
    for words in (
        "Evaluation of runs/a/best.ckpt",
        "ab" * 32,
        "runs/b/best.ckpt",
        "8,000 Hz, stereo, 16 bit linear, normalize none",
        "version 1.2.3",
        "decoder.coupling",
        "4, 4",
    ):
        assert words in page.text
    assert made[3].stat().st_size - sum(len(player["src"]) for player in page.of("audio")) < 2 * 350_000


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"bits": 8}, "Bits are those of the top byte of each 16-bit sample"),
        ({"bits": 8, "quantization": "mu-law"}, "Bits are those of the model's codes (mu-law, normalize none)"),
        ({}, "16 bit linear"),
    ],
)
@pytest.mark.usefixtures("no_pictures")
def test_whose_bits_they_are(made, tmp_path, spec, words):
    write_page(made[0] | {"spec": made[0]["spec"] | spec}, {}, tmp_path / "page.html")
    text = read_page(tmp_path / "page.html").text
    assert words in text
    assert ("Bits are those" in text) == bool(spec)


def test_names_are_text_and_not_markup(tmp_path):
    (tmp_path / "a.wav").touch()
    noise(tmp_path / "a.wav", 4000)
    evaluation = evaluation_of({AWKWARD: tmp_path / "a.wav"})
    evaluation["checkpoint"] = "<script>a & b</script>"
    evaluation["generated"] = {"<b>": {"<i>": "<u>"}}
    write_page(evaluation, {AWKWARD: tmp_path / "a.wav"}, tmp_path / "page.html")
    page = read_page(tmp_path / "page.html")
    assert not {"script", "b", "i", "u"} & {name for name, _ in page.tags}
    assert len(page.of("img")) == 2
    shown = AWKWARD.replace("\udcff", r"\udcff")
    assert all(shown in image["alt"] for image in page.of("img"))
    assert page.text.count(shown) == 2
    assert "Evaluation of <script>a & b</script>" in page.text


HARMS = {
    "not given": (lambda files, name: files.pop(name), "The audio file was not given."),
    "gone": (lambda files, name: files[name].unlink(), "gone.wav: there is no such file."),
    "changed": (lambda files, name: noise(files[name], 9001), "has changed since it was evaluated"),
    "shorter": (lambda files, name: noise(files[name], 8999), "has changed since it was evaluated"),
    "mono": (
        lambda files, name: write_pcm(files[name], read_pcm(files[name])[0].reshape(-1, 1), RATE),
        "has changed since it was evaluated",
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
    write_page(evaluation, files, tmp_path / "page.html")
    articles = (tmp_path / "page.html").read_text(encoding="utf-8").split("<article")[1:]
    for (name, (_, words)), article in zip(HARMS.items(), articles, strict=True):
        whole = name == "whole"
        assert words in article
        assert (article.count("<img"), article.count("<audio")) == ((2, 1) if whole else (1, 0))
        assert ("problem" in article) != whole


def test_tracks_of_which_only_the_beginning_was_scored(tmp_path, monkeypatch):
    monkeypatch.setattr("stereo_sashimi.commands.evaluate.page._BLOCK_FRAMES", 7001)
    monkeypatch.setattr("stereo_sashimi.commands.evaluate.page.EXCERPT_SECONDS", 1)
    files = {suffix: tmp_path / f"a.{suffix}" for suffix in ("wav", "flac", "ogg")}
    for file in files.values():
        soundfile.write(file, np.random.default_rng(0).integers(-3000, 3000, (30_000, 2)).astype(np.int16), RATE)
    write_page(evaluation_of(files, scored=24_000), files, tmp_path / "page.html")
    page = read_page(tmp_path / "page.html")
    assert page.text.count("1.00 s to 2.00 s of 3.00 s (frames 8,000 to 16,000)") == 3
    for player, file in zip(page.of("audio"), files.values(), strict=True):
        np.testing.assert_array_equal(heard(player), read_pcm(file)[0][8000:16_000])


def test_mono_without_the_rest(tmp_path):
    files = {"a.wav": tmp_path / "a.wav"}
    noise(files["a.wav"], 9000, channels=1)
    evaluation = evaluation_of(files, channels=1)
    evaluation["contexts"], evaluation["checkpoint_independent"] = ["carried"], None
    evaluation["tracks"][0]["lossless"], evaluation["pooled"]["lossless"] = {}, {}
    evaluation["pooled"]["contexts"]["carried"]["interval"] = None
    write_page(evaluation, files, tmp_path / "page.html")
    page = read_page(tmp_path / "page.html")
    pooled, tracks = page.tables
    assert pooled[0][-1] == "mono"
    assert pooled[1][2] == "*\N{EN DASH}*"
    assert [len(row) for row in tracks] == [3, 3]
    assert "8,000 Hz, mono" in page.text
    assert "1 track, 1.12 s" in page.text
    assert not re.search("dashed|gain|without coupling", page.text)


@pytest.mark.usefixtures("no_pictures")
def test_a_coder_that_lacks_a_track_has_no_total(made, tmp_path):
    evaluation, files, _, _ = made
    first, second = evaluation["tracks"]
    # As `metrics.totals.pooled` leaves it out.
    pooled = evaluation["pooled"] | {"lossless": {CODERS[0]: evaluation["pooled"]["lossless"][CODERS[0]]}}
    lacking = evaluation | {"tracks": [first, second | {"lossless": {CODERS[0]: 5}}], "pooled": pooled}
    write_page(lacking, files, tmp_path / "page.html")
    rows = read_page(tmp_path / "page.html").tables[-1]
    assert [row[-1] == "\N{EN DASH}" for row in rows] == [False, False, True, True]


def test_many_tracks(made, tmp_path, monkeypatch):
    monkeypatch.setattr("stereo_sashimi.commands.evaluate.page.MOST_PICTURED", 1)
    write_page(made[0], made[1], tmp_path / "page.html")
    page = read_page(tmp_path / "page.html")
    assert (len(page.of("article")), len(page.of("audio")), len(page.of("a"))) == (1, 1, 1)
    assert "for the first 1 of 2 tracks" in page.text
    assert len(page.tables[-1]) == 4


def test_generated_numbers_whatever_they_are():
    one = {"distance": 0.123456, "unit": "dB", "generated": {"median": -1.0, "quartiles": [-2.0, 0.5]}, "floor": None}
    tables = generated_tables({"files": {"generated": 12000}, "windows": 7, "metrics": {"rms": one, "peak": one}})
    assert [(table.title, table.head) for table in tables] == [
        ("", []),
        ("files", []),
        ("metrics", ["", "distance", "unit", "generated median", "generated quartiles", "floor"]),
    ]
    assert tables[0].rows == [["windows", "7"]]
    assert tables[1].rows == [["generated", "12,000"]]
    assert tables[2].rows[1] == ["peak", "0.1235", "dB", "-1", "-2, 0.5", "\N{EN DASH}"]
    assert generated_tables(None) == []
    assert [t.title for t in generated_tables({"a": {"b": {"c": True}, "d": {"e": 1}}})] == ["a, b", "a, d"]
