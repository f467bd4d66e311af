"""`stereo-sashimi page`: a page in the browser to draw, listen and compress, served by this machine for itself."""

import os
import socket
import tempfile
import threading
import warnings
import webbrowser
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from stereo_sashimi.commands.cli import keys
from stereo_sashimi.commands.shared.checks import check_keys
from stereo_sashimi.commands.shared.loading import device_of
from stereo_sashimi.commands.shared.runs import find_checkpoint, relative
from stereo_sashimi.models.model_files import HUB
from stereo_sashimi.schema import check_type
from stereo_sashimi.signals import Stopped, listening


def run(cfg: DictConfig) -> None:
    """Serve the page until a signal comes, and raise SystemExit with 128 and its number; nothing is left behind."""
    check_keys(cfg, keys("page"))
    check_type(cfg.browser, bool, "browser")
    device = device_of(cfg.device)
    checkpoint = None if cfg.checkpoint is None else str(cfg.checkpoint)
    if checkpoint is not None:
        found = find_checkpoint(checkpoint, cfg.paths.runs)
        # What the Hub had is a file now; the page itself asks no other machine.
        checkpoint = relative(found) if checkpoint.startswith(HUB) else checkpoint
    ending = threading.Event()
    with listen(cfg.host, cfg.port) as listener, tempfile.TemporaryDirectory(prefix="stereo-sashimi-page-") as folder:
        # Read by gradio when it is imported.
        os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}
        _import_gradio()
        from stereo_sashimi.commands.page.draw_tab import DrawTab
        from stereo_sashimi.commands.page.page_layout import server_of

        draw = DrawTab(checkpoint, cfg.paths.runs, device, cfg.engine, Path(folder), ending)
        server = server_of(draw, ending)
        host, port = listener.getsockname()[:2]
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
        print(f"{url}  Ctrl-C ends it", flush=True)
        if cfg.browser:
            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
        try:
            with listening():
                # It stops at a signal, and hands it on when its connections are closed.
                server.run([listener])
        except Stopped as stopped:
            stopped.leave("The page has ended.")
        finally:
            ending.set()


def listen(host: Any, port: Any) -> socket.socket:
    """A socket that listens. Raises ValueError where that cannot be; `port` None is any free one."""
    if port is not None and (isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65535):
        raise ValueError(f"port must be 1 to 65535, or null for any free one; got {port!r}.")
    family = socket.AF_INET6 if ":" in str(host) else socket.AF_INET
    try:
        return socket.create_server((str(host), port or 0), family=family)
    except OSError as error:
        raise ValueError(
            f"host={host} port={port} cannot be listened on ({error.strerror}). Give another port=.., port=null for "
            "any free one, or host=127.0.0.1."
        ) from error


def _import_gradio() -> None:
    try:
        with warnings.catch_warnings():
            # It is told that there is no ffmpeg, which it is not asked to use here.
            warnings.simplefilter("ignore")
            import gradio  # noqa: F401
    except ImportError as error:
        raise ValueError("page needs gradio, which is not installed. pip install 'stereo-sashimi[page]'") from error
