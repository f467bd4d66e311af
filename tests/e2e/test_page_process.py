"""The page as its users start it: what it serves, what it refuses, and that Ctrl-C ends it."""

import io
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
from gradio_client import Client, handle_file
from gradio_client.client import Job
from page_process import served

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with served(tmp_path_factory.mktemp("page")) as address:
        yield address


@pytest.fixture
def client(address, tmp_path):
    return Client(address, verbose=False, analytics_enabled=False, download_files=str(tmp_path / "down"))


def recording(path: Path, frames: int) -> Path:
    steps = np.random.default_rng(0).integers(-90, 91, (frames, 2))
    soundfile.write(path, np.cumsum(steps, axis=0).astype(np.int16), 44100)
    return path


@pytest.fixture
def song(tmp_path) -> Path:
    return recording(tmp_path / "song.wav", 4000)


@pytest.fixture
def long_song(tmp_path) -> Path:
    return recording(tmp_path / "long.wav", 900_000)


DRAW = {"api_name": "/draw"}


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 200
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def shown(job: Job) -> list[Any]:
    """What is seen in the end: each component as it was shown last."""
    job.result(timeout=240)
    columns = zip(*job.outputs(), strict=True)
    return [([value for value in column if not isinstance(value, dict)] or [None])[-1] for column in columns]


def test_nothing_of_the_page_comes_from_elsewhere(address):
    answer = httpx.get(address, timeout=60)
    assert "'self'" in answer.headers["content-security-policy"]
    assert "http" not in answer.headers["content-security-policy"]
    links = re.findall(r"""(?:src|href)\s*=\s*["']([^"']+)""", answer.text)
    assert len(links) >= 3
    assert [link for link in links if re.match(r"(\w+:)?//", link) and not link.startswith(address)] == []
    assert "fonts.g" not in answer.text
    assert '"enable_monitoring":false' in answer.text.replace(": ", ":") or "monitoring" not in answer.text


def test_a_draw_is_heard_while_a_file_is_compressed(address, client, song):
    drawing = client.submit("pretrained", 5, 1.0, 1.0, 0.3, None, 0, **DRAW)
    coding = client.submit(handle_file(song), "fast", api_name="/compress")
    line, live, file, sheet, bits = shown(drawing)
    assert "0.30 of 0.30 s" in line
    heard = httpx.get(address + re.search(r'src="(live/\d+\.wav)"', live)[1]).content
    pcm, rate = soundfile.read(file, dtype="int16")
    assert (len(pcm), rate) == (round(0.3 * 44100), 44100)
    assert (soundfile.read(io.BytesIO(heard), dtype="int16")[0] == pcm).all()
    assert all("data:image/webp" in each for each in (sheet, bits))
    words, coded, _, curve = shown(coding)
    assert "Verified" in words
    assert "data:image/webp" in curve
    back = shown(client.submit(handle_file(coded), "default", api_name="/compress"))[1]
    assert Path(back).read_bytes() == song.read_bytes()


def test_a_draw_is_stopped(client):
    drawing = client.submit("pretrained", 0, 1.0, 1.0, 100, None, 0, **DRAW)
    wait_for(lambda: drawing.outputs() and "of 100.00 s" in drawing.outputs()[-1][0])
    client.predict(api_name="/stop_draw")
    assert 0 < soundfile.info(shown(drawing)[2]).duration < 100
    # Pressed while nothing goes on it stops nothing.
    client.predict(api_name="/stop_draw")
    assert "0.10 of 0.10 s" in shown(client.submit("pretrained", 0, 1.0, 1.0, 0.1, None, 0, **DRAW))[0]


def test_a_compression_ends_when_its_tab_is_closed(client, long_song):
    coding = client.submit(handle_file(long_song), "best", api_name="/compress")
    wait_for(coding.outputs)
    # Ends what tells the page that the tab is open; answers still come.
    client.close()
    assert "Stopped" in shown(coding)[0]


def test_bad_input_is_answered_with_a_sentence(client, tmp_path, song):
    (tmp_path / "bad.wav").write_text("no audio, only words")
    (tmp_path / "bad.ssc").write_text("no audio, only words")
    said = [
        client.predict("pretrained", 0, 1.0, 1.0, 1, handle_file(tmp_path / "bad.wav"), 0, **DRAW)[0],
        client.predict("nowhere", 0, 1.0, 1.0, 1, None, 0, **DRAW)[0],
        client.predict("pretrained", 0, 1.0, 1.0, 1, handle_file(song), 99, **DRAW)[0],
        client.predict("pretrained", 0, 1.0, 1.0, 0, None, 0, **DRAW)[0],
        client.predict("pretrained", -1, 1.0, 1.0, 1, None, 0, **DRAW)[0],
        client.predict(handle_file(tmp_path / "bad.ssc"), "fast", api_name="/compress")[0],
        client.predict(None, "fast", api_name="/compress")[0],
    ]
    expected = (
        r"bad.wav: not an audio file .*[^.]\)\. Convert it",
        "There is no checkpoint nowhere",
        "prompt_seconds=99 is longer than song.wav",
        "Seconds must be above 0",
        "Seed must be a whole number",
        "bad.ssc is no .ssc file",
        "no file yet",
    )
    for sentence, words in zip(said, expected, strict=True):
        assert re.match(rf'<div class="words refused">.*{words}', sentence), sentence
        assert "/" not in sentence.replace("</div>", "").replace("runs/", "")


def test_uploads_stay_in_their_folder(address, tmp_path_factory):
    answer = httpx.post(address + "gradio_api/upload", files={"files": ("../../../../outside.wav", b"words")})
    assert "stereo-sashimi-page-" in answer.json()[0]
    found = list(tmp_path_factory.getbasetemp().rglob("*outside.wav"))
    assert [str(path) for path in found] == answer.json()


def test_no_other_file_is_read(tmp_path):
    """What a client sends in place of an upload; gradio prints what it refuses."""
    soundfile.write(tmp_path / "secret.wav", np.zeros((40, 2), np.int16), 44100)
    forged = {"path": str(tmp_path / "secret.wav"), "meta": {"_type": "gradio.FileData"}}
    with served(tmp_path, silent=False) as address, httpx.Client(base_url=address, timeout=60) as client:
        assert client.get(f"gradio_api/file={tmp_path / 'secret.wav'}").status_code == 403
        begun = client.post("gradio_api/call/compress", json={"data": [forged, "fast"]}).json()["event_id"]
        assert client.get(f"gradio_api/call/compress/{begun}").text.startswith("event: error")


def test_work_that_goes_on_ends_with_the_page(tmp_path, long_song):
    with served(tmp_path) as address:
        client = Client(address, verbose=False, analytics_enabled=False)
        drawing = client.submit("pretrained", 0, 1.0, 1.0, 100, None, 0, **DRAW)
        coding = client.submit(handle_file(long_song), "best", api_name="/compress")
        wait_for(lambda: drawing.outputs() and "of 100.00 s" in drawing.outputs()[-1][0])
        wait_for(coding.outputs)
    assert "Verified" not in str(coding.outputs())
