"""The page and its server: two tabs of gradio components, errors as sentences, and what is heard while it is drawn."""

import functools
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from types import FrameType
from typing import Any

import gradio as gr
import uvicorn
from fastapi import FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from markupsafe import Markup

from stereo_sashimi.audio.io import AUDIO_SUFFIXES
from stereo_sashimi.codec.pcm_files import SUFFIXES
from stereo_sashimi.commands.page.codec_tab import CURVE_SECONDS, CodecTab
from stereo_sashimi.commands.page.draw_tab import LONGEST_S, DrawTab
from stereo_sashimi.ops.backend_error import BackendError
from stereo_sashimi.pretrained import DRUMS, PROFILES

# Pictures keep letters that can be read on a telephone, where they are moved under the finger.
STYLE = """
.gradio-container { width: 100% !important; max-width: 1320px !important; margin: 0 auto !important; }
.gradio-container { --block-info-text-color: var(--block-label-text-color); }
.picture { overflow-x: auto; } .picture img { width: 100%; min-width: 860px; display: block; border-radius: 4px; }
.picture p { position: sticky; left: 0; }
@media (max-width: 900px) { .picture p::after { content: " (it goes on to the right)"; } }
.words { white-space: pre-wrap; line-height: 1.6; } .words.refused { color: #d0021b; }
.dark .words.refused { color: #ff6b6b; }
.words :is(th, td) { text-align: right; padding: 2px 8px !important; border: none !important; }
.words :is(th, td):first-child { text-align: left; padding-left: 0 !important; }
.words :is(table, tr) { border: none !important; } .words th { font: inherit !important; }
.result .empty { min-height: 62px !important; height: auto !important; }
.live audio { width: 100%; display: block; }
"""
# The browser refuses whatever this page, or what comes with it, would fetch from elsewhere.
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"


class _Server(uvicorn.Server):
    """Ends draws and compressions at a signal; that connections are broken off then is no error."""

    def __init__(self, config: uvicorn.Config, ending: Event) -> None:
        super().__init__(config)
        self._ending = ending

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._ending.set()
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        super().handle_exit(sig, frame)


def server_of(draw: DrawTab, ending: Event) -> uvicorn.Server:
    """The server, to be run with a socket that listens."""
    app = FastAPI(openapi_url=None)

    @app.get("/live/{key}.wav")
    def live(key: str) -> StreamingResponse:
        if key not in draw.live:
            raise HTTPException(404)
        return StreamingResponse(draw.live[key].read(), media_type="audio/wav", headers={"cache-control": "no-store"})

    page = layout(draw, CodecTab(draw.folder, ending))
    gr.mount_gradio_app(app, page, "/", footer_links=[], run_history=False, enable_monitoring=False, css=STYLE,
                        ssr_mode=False, mcp_server=False, pwa=False, show_error=False)  # fmt: skip
    # Without it gradio reads any path that a client sends in place of an upload.
    page.has_launched = True
    config = uvicorn.Config(
        app, log_level="warning", headers=[("content-security-policy", POLICY)], timeout_graceful_shutdown=1
    )
    return _Server(config, ending)


def layout(draw: DrawTab, codec: CodecTab) -> gr.Blocks:
    """The page, not yet served."""
    # Files that nobody asked for during a day are deleted, and all of them when the page ends.
    with gr.Blocks(title="stereo-sashimi", analytics_enabled=False, delete_cache=(3600, 86400)) as page:
        with gr.Tab("Draw"):
            _draw(page, draw)
        with gr.Tab("Compress"):
            _compress(page, codec)
    # One draw and one compression at a time; others wait.
    return page.queue(default_concurrency_limit=1)


def _draw(page: gr.Blocks, tab: DrawTab) -> None:
    first = tab.names()[0]
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            model = gr.Dropdown(
                [], value=first, label="Model", allow_custom_value=True,
                info=f"{DRUMS}: single hits of about a second. Or the path of a run, a .ckpt file or an exported model",
            )  # fmt: skip
            about = gr.HTML()
            with gr.Row():
                seconds = gr.Number(2, label="Seconds", info=f"at most {LONGEST_S}", min_width=120)
                seed = gr.Number(0, label="Seed", info="another one, another draw", min_width=120)
            temperature = gr.Slider(0, 1.5, 0.9, step=0.01, label="Temperature", info="1: the model itself")
            top_p = gr.Slider(0.01, 1, 1, step=0.01, label="Top-p", visible=False)
            with gr.Accordion("Prompt: go on where a file ends", open=False):
                prompt = gr.File(
                    file_types=[*AUDIO_SUFFIXES], height=180,
                    label=f"{', '.join(AUDIO_SUFFIXES)} with the model's channels; any rate",
                )  # fmt: skip
                prompt_seconds = gr.Number(0, label="Prompt seconds", info="its first ones; 0: all of it")
        with gr.Column(scale=3, min_width=320):
            with gr.Row():
                begin = gr.Button("Draw", variant="primary", min_width=120)
                end = gr.Button("Stop", variant="stop", min_width=120)
            line = gr.HTML(
                _words("The first player sounds while it is drawn. Below 1 x real time it waits for samples.")
            )
            live = gr.HTML(elem_classes="live")
            recording = gr.Audio(label="What was drawn", interactive=False, buttons=["download"])
    picture, bits = gr.HTML(), gr.HTML()
    stopping = _Stop(page, end, "stop_draw")

    @_spoken(about, tab.folder)
    def about_model(name: str) -> Iterator[Any]:
        words, categorical = tab.about(name)
        yield {about: _words(words), top_p: gr.Slider(visible=categorical, value=0.95 if categorical else 1)}

    @_spoken(line, tab.folder)
    def run(request: gr.Request, *values: Any) -> Iterator[Any]:
        with stopping.work(request) as stop:
            yield {line: _words("loading the model"), live: "", recording: None, picture: "", bits: ""}
            for drawn in tab.draw(stop, *values):
                shown: dict[Any, Any] = {line: _words(drawn.text)}
                if drawn.live:
                    shown[live] = f'<audio controls autoplay src="live/{drawn.live}.wav"></audio>'
                if drawn.file:
                    shown[recording] = str(drawn.file)
                if drawn.sheet:
                    shown |= {picture: drawn.sheet, bits: drawn.bits}
                yield shown

    page.load(lambda: gr.Dropdown(choices=tab.names()), None, model, api_visibility="private")
    gr.on([page.load, model.change], about_model, model, [about, top_p], api_name="about", show_progress="hidden")
    begin.click(stopping.ready, queue=False, api_visibility="private").then(
        run, [model, seed, temperature, top_p, seconds, prompt, prompt_seconds],
        [line, live, recording, picture, bits], api_name="draw", concurrency_id="draw", show_progress="minimal",
    )  # fmt: skip


def _compress(page: gr.Blocks, tab: CodecTab) -> None:
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            given = gr.File(
                file_types=[*SUFFIXES, ".ssc"], height=180,
                label="WAV, AIFF or FLAC of 8, 16 or 24 bits to compress, or an .ssc file to restore",
            )  # fmt: skip
            profile = gr.Radio([*PROFILES], value="default", label="Profile", info="an .ssc file knows its own")
            with gr.Row():
                begin = gr.Button("Compress or restore", variant="primary", scale=2, min_width=180)
                end = gr.Button("Stop", variant="stop", min_width=100)
        with gr.Column(scale=3, min_width=320):
            result = gr.File(label="Result", interactive=False, elem_classes="result")
            player = gr.Audio(label="What came back", interactive=False, visible=False, buttons=["download"])
            words = gr.HTML(
                _words(
                    f"Every sample comes back. Bits of each second are shown for the first {CURVE_SECONDS} seconds, of "
                    "8 or 16 bits, mono or stereo."
                )
            )
    bits = gr.HTML(min_height=90)
    stopping = _Stop(page, end, "stop_compress")

    @_spoken(words, tab.folder)
    def run(request: gr.Request, path: str | None, name: str, progress: Any = gr.Progress()) -> Iterator[Any]:  # noqa: B008
        if path is None:
            raise ValueError("There is no file yet. Drop one into the field.")
        with stopping.work(request) as stop:
            yield {words: "", result: None, player: gr.Audio(None, visible=False), bits: ""}
            for coded in tab.run(path, name, lambda share, word: progress(share, desc=word), stop):
                shown: dict[Any, Any] = {words: _words(coded.text)}
                if coded.file:
                    shown[result] = str(coded.file)
                    # What browsers play.
                    plays = coded.file.suffix in (".wav", ".flac")
                    shown[player] = gr.Audio(str(coded.file) if plays else None, visible=plays)
                if coded.bits:
                    shown[bits] = coded.bits
                yield shown

    begin.click(stopping.ready, queue=False, api_visibility="private").then(
        run, [given, profile], [words, result, player, bits], api_name="compress", concurrency_id="codec",
        show_progress_on=bits,
    )  # fmt: skip


class _Stop:
    """Ends the work of a session where `button` is pressed or the page is left, also while the work waits in line."""

    def __init__(self, page: gr.Blocks, button: gr.Button, name: str) -> None:
        self._events: dict[str | None, Event] = {}
        button.click(self._press, api_name=name, queue=False)
        page.unload(self._press)

    def _press(self, request: gr.Request) -> None:
        if request.session_hash in self._events:
            self._events[request.session_hash].set()

    def ready(self, request: gr.Request) -> None:
        """To be called by the click that asks for work. A second one begins nothing: what goes on keeps its event."""
        if request.session_hash not in self._events or self._events[request.session_hash].is_set():
            self._events[request.session_hash] = Event()

    @contextmanager
    def work(self, request: gr.Request) -> Iterator[Event]:
        """The event, for the work; clients that do not click have it from here on."""
        try:
            yield self._events.setdefault(request.session_hash, Event())
        finally:
            self._events.pop(request.session_hash, None)


def _spoken(place: gr.HTML, folder: Path) -> Callable[[Callable[..., Iterator[Any]]], Callable[..., Iterator[Any]]]:
    """Errors about input become a sentence in `place`."""

    def wrap(run: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        @functools.wraps(run)
        def spoken(*values: Any) -> Iterator[Any]:
            try:
                yield from run(*values)
            except (ValueError, OSError, BackendError) as error:
                yield {place: _words(sentence(error, folder), "words refused")}

        return spoken

    return wrap


def sentence(error: Exception, folder: Path) -> str:
    """What an error says, on one line; a file in a folder of `folder`, where uploads are, has its name alone."""
    return re.sub(rf"{re.escape(str(folder))}[/\\][^/\\]+[/\\]", "", " ".join(str(error).split()))


def _words(text: str, kind: str = "words") -> str:
    return Markup('<div class="{}">{}</div>').format(kind, text)
