"""The page in headless Chromium, on a desk and on a telephone: draw, listen, a bad file, compress."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from page_process import served

CHROMIUM = shutil.which("chromium")
# A browser that calls nobody by itself.
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on the path"),
]
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with served(tmp_path_factory.mktemp("page")) as address:
        yield address


@pytest.fixture
def page(address, request, tmp_path):
    """The page at a width; behind the test nothing was asked for elsewhere, no error came, and nothing sticks out."""
    asked, errors = [], []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        page = browser.new_page(viewport={"width": request.param, "height": 900})
        page.set_default_timeout(120_000)
        page.on("request", lambda sent: asked.append(sent.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
        page.goto(address)
        page.get_by_text("decoder categorical").wait_for()
        yield page
        assert page.evaluate("document.documentElement.scrollWidth") <= request.param
        browser.close()
    assert len(asked) > 10
    assert [url for url in asked if not url.startswith((address, "data:", f"blob:{address}"))] == []
    assert errors == []


@pytest.fixture
def files(tmp_path) -> Path:
    for name, frames in (("song.wav", 8000), ("long.wav", 4_000_000)):
        steps = np.random.default_rng(0).integers(-90, 91, (frames, 2))
        soundfile.write(tmp_path / name, np.cumsum(steps, axis=0).astype(np.int16), 44100)
    (tmp_path / "bad.wav").write_text("no audio, only words")
    return tmp_path


def compress(page, file: Path) -> None:
    page.get_by_role("tab", name="Compress").click()
    # What is behind a tab is made when it is opened.
    page.get_by_text("an .ssc file to restore").wait_for()
    page.locator("input[type=file]").last.set_input_files(file)
    page.get_by_label(file.name).wait_for()
    page.get_by_role("button", name="Compress or restore").click()


@pytest.mark.parametrize("page", [1280, 390], indirect=True)
def test_the_page_draws_plays_refuses_and_compresses(page, files):
    page.get_by_label("Seconds", exact=True).fill("2")
    page.get_by_role("button", name="Draw").click()
    page.locator(".live audio").wait_for()
    page.wait_for_function("document.querySelector('.live audio').currentTime > 0.5")
    page.locator(".picture img").nth(1).wait_for()
    assert page.get_by_text("2.00 of 2.00 s").is_visible()
    with page.expect_download() as download:
        page.locator("a[download]").first.click()
    assert soundfile.info(download.value.path()).duration == 2.0

    page.get_by_role("button", name=re.compile("Prompt")).click()
    page.locator("input[type=file]").first.set_input_files(files / "bad.wav")
    page.get_by_label("bad.wav").wait_for()
    page.get_by_role("button", name="Draw").click()
    page.locator(".refused", has_text="bad.wav: not an audio file").wait_for()

    compress(page, files / "song.wav")
    page.get_by_text("Verified: all 8,000 frames").wait_for()
    page.locator(".picture img").last.wait_for()
    with page.expect_download() as download:
        page.get_by_role("link", name=re.compile(r"KB")).last.click()
    assert download.value.suggested_filename == "song.ssc"


@pytest.mark.parametrize("page", [1280], indirect=True)
def test_what_waits_can_be_stopped_and_a_closed_tab_lets_others_on(page, files):
    other = page.context.browser.new_page()
    other.set_default_timeout(120_000)
    other.goto(page.url)
    compress(other, files / "long.wav")
    other.get_by_text("coding, then decoding").wait_for()
    compress(page, files / "song.wav")
    page.get_by_text(re.compile("queue: 1/1")).wait_for()
    page.get_by_role("button", name="Stop").last.click()
    # A second click begins nothing, and what goes on can still be ended.
    other.get_by_role("button", name="Compress or restore").click()
    other.close()
    page.locator(".refused", has_text="Stopped; nothing was written").wait_for()
