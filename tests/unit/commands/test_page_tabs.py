"""What is behind the tabs of the page: draws as streams, files there and back, errors as sentences."""

import io
import sys
from collections.abc import Iterable
from pathlib import Path
from threading import Event, Thread
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import soundfile
import torch
from matplotlib.figure import Figure

import stereo_sashimi
from stereo_sashimi.codec.container import CodecError
from stereo_sashimi.commands.page import codec_tab, draw_tab, page_command
from stereo_sashimi.commands.page.codec_tab import CodecTab
from stereo_sashimi.commands.page.draw_tab import DrawTab, bits_each_second
from stereo_sashimi.commands.page.live_wav import LiveWav
from stereo_sashimi.generation.sampling import blocks
from stereo_sashimi.spec import LN2, AudioSpec

GOLDEN = Path(__file__).resolve().parents[2] / "golden/codec/v3"
STEREO, MONO = str(GOLDEN / "stereo-16-dml-coupled"), str(GOLDEN / "mono-8-categorical")
NOW = 0.01


def noise(frames: int, channels: int, seed: int = 0) -> np.ndarray:
    steps = np.random.default_rng(seed).integers(-90, 91, (frames, channels))
    return np.clip(np.cumsum(steps, axis=0), -30000, 30000).astype(np.int16)


def file_of(shown: Iterable[Any]) -> Path:
    return next(each.file for each in shown if each.file)


@pytest.fixture
def draw(tmp_path, monkeypatch):
    """`draw(checkpoint, seconds, ..)`: all that the page would show."""
    monkeypatch.setattr(draw_tab, "LINE_S", 0.0)
    tab = DrawTab(None, str(tmp_path / "runs"), torch.device("cpu"), "auto", tmp_path, Event())

    def go(name=STEREO, seconds=NOW, *, seed=3, temperature=1.0, top_p=1.0, prompt=None, first=0.0, stop=None):
        stop = stop or Event()
        return tab.draw(stop, name, seed, temperature, top_p, seconds, prompt and str(prompt), first)

    go.tab = tab
    return go


def test_a_draw_is_what_generate_draws_and_is_heard_as_it_is_kept(draw):
    shown = list(draw(seconds=0.05))
    key = next(drawn.live for drawn in shown if drawn.live)
    file = file_of(shown)
    pcm, _ = soundfile.read(file, dtype="int16")
    assert (pcm == stereo_sashimi.generate(stereo_sashimi.load(STEREO), 0.05, seed=3)).all()
    heard, _ = soundfile.read(io.BytesIO(b"".join(draw.tab.live[key].read())), dtype="int16")
    assert (heard == pcm).all()
    assert shown[-1].text.startswith("0.05 of 0.05 s  ")
    assert "bits/sample (left" in shown[-1].text
    assert shown[-1].sheet.startswith('<div class="picture"><p>waveforms')
    assert "data:image/webp;base64," in shown[-1].bits
    assert len([drawn for drawn in shown if "of 0.05 s" in drawn.text]) > 2


def test_a_prompt_is_converted_and_stands_in_front(draw, tmp_path):
    rate = stereo_sashimi.load(STEREO).spec.sample_rate
    soundfile.write(tmp_path / "prompt.wav", noise(200, 2), rate // 2)
    shown = list(draw(prompt=tmp_path / "prompt.wav", first=100 / rate))
    assert "from where the prompt ends" in shown[-1].bits
    file = file_of(shown)
    assert soundfile.info(file).frames == 100 + round(NOW * rate)
    assert file.name == "prompt-continued-seed3.wav"


@pytest.mark.parametrize("which", ["stop", "ending"])
def test_a_draw_that_is_stopped_keeps_what_there_is(draw, which):
    stop = Event()
    drawing = draw(seconds=5.0, stop=stop)
    next(drawn for drawn in drawing if "of 5.00 s" in drawn.text)
    (stop if which == "stop" else draw.tab._ending).set()
    assert 0 < soundfile.info(file_of(drawing)).duration < 5


def test_categorical_models_take_top_p_and_others_say_that_they_do_not(draw):
    line, categorical = draw.tab.about(MONO)
    assert categorical
    assert "1 channels" in line
    assert "sample-topp0.5-seed3.wav" in list(draw(MONO, top_p=0.5))[-1].text
    assert not draw.tab.about(STEREO)[1]
    with pytest.raises(ValueError, match="top_p"):
        next(draw(top_p=0.5))


def test_models_are_offered_and_kept(draw):
    assert draw.tab.names() == ["drums", "pretrained"]
    first = DrawTab(MONO, draw.tab._runs, torch.device("cpu"), "auto", draw.tab.folder, Event())
    assert first.names() == [MONO, "drums", "pretrained"]
    assert draw.tab.model(MONO) is first.model(MONO)


def test_old_draws_can_be_heard_no_more(draw):
    for _ in range(draw_tab._MOST_LIVE + 2):
        assert next(drawn.live for drawn in draw() if drawn.live) in draw.tab.live
    assert len(draw.tab.live) == draw_tab._MOST_LIVE


def bad_files(folder: Path) -> dict[str, Path]:
    """Uploads that are not what their name says."""
    paths = {name: folder / f"{name}.wav" for name in ("words", "nan", "mono", "cut")}
    paths["words"].write_text("no audio, only words")
    soundfile.write(paths["nan"], np.full((40, 2), np.nan), 44100, "FLOAT")
    soundfile.write(paths["mono"], noise(40, 1), 44100)
    soundfile.write(paths["cut"], noise(400, 2), 44100)
    paths["cut"].write_bytes(paths["cut"].read_bytes()[:600])
    return paths


# What else is no audio of the model's format is in e2e/test_bad_checkpoints.py.
@pytest.mark.parametrize(("name", "words"), [("mono", "has 1 channel, the model 2"), ("cut", "ends early")])
def test_bad_prompts_are_refused_before_anything_is_drawn(draw, tmp_path, name, words):
    with pytest.raises(ValueError, match=words):
        next(draw(prompt=bad_files(tmp_path)[name]))
    assert not draw.tab.live


def test_bad_numbers_and_names_are_refused(draw):
    for given, words in (
        ({"seconds": None}, "a number"),
        ({"name": "nowhere"}, "no checkpoint"),
        ({"name": ""}, "No model is chosen"),
        ({"name": "hub:a/b"}, "asks no other machine"),
        ({"seconds": 0}, "^Seconds must be above 0 and at most 120; got 0"),
        ({"seconds": 120.001}, "^Seconds must.*got 120.001"),
        ({"seconds": 1e-9}, "^seconds must give at least one frame"),
        ({"seed": 1.5}, "^Seed must be a whole number from 0 to 9007199254740992; got 1.5"),
        ({"seed": -1.0}, "^Seed must.*got -1"),
        ({"seed": 1e30}, "^Seed must.*got 1e.30"),
        ({"first": -1.0}, r"^Prompt seconds must be 0 \(all of it\) or more; got -1"),
    ):
        with pytest.raises(ValueError, match=words):
            next(draw(**given))
    assert not draw.tab.live


def test_bits_of_seconds_are_all_bits():
    model = stereo_sashimi.load(MONO)
    drawn = list(blocks(model, 700, [0], block_frames=130))
    bits = bits_each_second(drawn, 300)
    assert bits.shape == (3, 1)
    assert bits.sum() == pytest.approx(sum(block.nats.sum() for block in drawn) / LN2)
    # 130 + 130 + 40 of 130 frames.
    assert bits[0, 0] == pytest.approx((drawn[0].nats + drawn[1].nats + drawn[2].nats * 40 / 130).item() / LN2)


def test_a_live_file_is_read_while_it_is_written():
    live, heard = LiveWav(AudioSpec(sample_rate=8000, n_channels=2, bits=16), 100), []
    reader = Thread(target=lambda: heard.extend(live.read()))
    reader.start()
    pcm = noise(60, 2)
    for part in np.array_split(pcm, 3):
        live.write(part)
    live.close()
    reader.join(timeout=20)
    content = b"".join(heard)
    # The header tells of all that was planned.
    assert content[44:] == pcm.tobytes()
    assert int.from_bytes(content[40:44], "little") == 100 * 4


@pytest.fixture
def codec(tmp_path):
    """`codec(file)`: all that the page would show."""
    (tmp_path / "out").mkdir()
    tab = CodecTab(tmp_path / "out", Event())

    def go(file, profile="fast", stop=None, on_share=lambda share, word: None):
        return list(tab.run(str(file), profile, on_share, stop or Event()))

    return go


@pytest.mark.parametrize(("channels", "bits", "rate"), [(2, 16, 48000), (1, 8, 1000), (2, 24, 44100), (3, 16, 44100)])
def test_a_file_becomes_smaller_and_comes_back_to_the_byte(codec, tmp_path, channels, bits, rate):
    song = tmp_path / "my|<b>song.wav"
    subtype = {8: "PCM_U8", 16: "PCM_16", 24: "PCM_24"}[bits]
    soundfile.write(song, noise(2500, channels).astype(np.int32) << 16, rate, subtype)
    coded = codec(song)
    file = file_of(coded)
    assert file.name == "my|<b>song.ssc"
    assert file.stat().st_size < song.stat().st_size
    assert "Verified: all 2,500 frames" in coded[-1].text
    assert "<td>.ssc (fast-1)</td>" in coded[-1].text
    assert bool(coded[-1].bits) == (channels <= 2 and bits <= 16)
    back = codec(file)
    assert back[-1].file.name == song.name
    assert back[-1].file.read_bytes() == song.read_bytes()
    assert f"{channels} channels, {rate} Hz, {bits} bit" in back[-1].text


def test_the_curve_shows_the_bits_of_the_model_and_of_flac(codec, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(codec_tab, "bits_curve", lambda bits, *rest: drawn.append(bits) or Figure(figsize=(1, 1)))
    soundfile.write(tmp_path / "a.flac", noise(3300, 2), 1000)
    size = file_of(codec(tmp_path / "a.flac")).stat().st_size
    ours, flac = (drawn[0] * 2).T
    assert len(ours) == 4
    # The header of a file is some 400 bytes; FLAC's is paid for each second.
    assert size - 900 < ours.sum() / 8 < size
    assert 0.9 * ours.sum() < flac.sum() < 3 * ours.sum()


@pytest.mark.parametrize(("name", "words"), [("words", "not an audio file"), ("nan", "FLOAT")])
def test_bad_files_are_refused(codec, tmp_path, name, words):
    with pytest.raises(ValueError, match=words):
        codec(bad_files(tmp_path)[name])
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_bad_ssc_files_are_refused(codec, tmp_path):
    own = GOLDEN / "stereo-16-dml-coupled.ssc"
    (tmp_path / "half.ssc").write_bytes((GOLDEN / "fast-1.ssc").read_bytes()[:500])
    (tmp_path / "words.ssc").write_text("no audio, only words")
    damaged = bytearray((GOLDEN / "fast-1.ssc").read_bytes())
    damaged[-9] ^= 1
    (tmp_path / "damaged.ssc").write_bytes(damaged)
    for path, words in (
        (own, "does not come with this package"),
        (tmp_path / "half.ssc", "cut off"),
        (tmp_path / "words.ssc", "is no .ssc file"),
        (tmp_path / "damaged.ssc", "damaged"),
    ):
        with pytest.raises(ValueError, match=words):
            codec(path)
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_a_compression_that_is_stopped_leaves_nothing(codec, tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(3000, 2), 44100)
    stop = Event()
    with pytest.raises(ValueError, match="Stopped; nothing was written"):
        codec(tmp_path / "a.wav", stop=stop, on_share=lambda share, word: stop.set())
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_what_is_stopped_before_it_begins_does_nothing(draw, codec):
    stop = Event()
    stop.set()
    assert [drawn.text for drawn in draw("nowhere", stop=stop)] == ["Stopped before the first frame."]
    with pytest.raises(ValueError, match="Stopped; nothing was written"):
        codec("nowhere.wav", stop=stop)


def test_what_is_verified_stays_when_its_curve_is_stopped(codec, tmp_path, monkeypatch):
    monkeypatch.setattr(codec_tab, "PREFILL_FRAMES", 1000)
    soundfile.write(tmp_path / "a.wav", noise(3000, 2), 44100)
    stop, curve = Event(), "bits of each second"
    shown = codec(tmp_path / "a.wav", stop=stop, on_share=lambda share, word: word == curve and stop.set())
    assert file_of(shown).is_file()
    assert "Verified" in shown[-1].text
    assert not shown[-1].bits


def test_an_error_of_the_curve_is_told(codec, tmp_path, monkeypatch):
    monkeypatch.setattr(codec_tab, "bits_curve", Mock(side_effect=CodecError("broken")))
    soundfile.write(tmp_path / "a.wav", noise(3000, 2), 44100)
    with pytest.raises(CodecError, match="broken"):
        codec(tmp_path / "a.wav")


def test_without_gradio_the_command_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ValueError, match=r"pip install 'stereo-sashimi\[page\]'"):
        page_command._import_gradio()


def test_a_port_that_is_taken_is_refused_by_name():
    with page_command.listen("127.0.0.1", None) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=rf"port={port} cannot be listened on .*port=null"):
            page_command.listen("127.0.0.1", port)
    for port in (0, 70000, "http", True):
        with pytest.raises(ValueError, match="port must be 1 to 65535"):
            page_command.listen("127.0.0.1", port)
