"""HTML pages that need nothing else and run nothing: templates of this package, pictures and sounds as data: URIs."""

import base64
import io
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import soundfile
from jaxtyping import Int16
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

# Half of the bytes of a picture in PNG are the noise in its spectrograms; WebP takes a sixth.
_PICTURE_QUALITY = 85


class PageTable(NamedTuple):
    """A table of a page; the first cell of a row is its name."""

    head: list[str]
    rows: list[list[str]]


def render_page(template: str, filters: dict[str, Callable[..., str]], **values: Any) -> bytes:
    """The page that a template of commands/, such as "report/report.html.jinja", makes of `values`."""
    environment = Environment(
        loader=PackageLoader("stereo_sashimi.commands", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    # A file name that is not UTF-8 holds halves of surrogate pairs; the page shows them as \udc..
    return environment.get_template(template).render(values).encode(errors="backslashreplace")


def _data_uri(media_type: str, content: bytes) -> str:
    """The content itself as an address, for src attributes."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def picture_uri(figure: Figure, kind: str) -> str:
    """The figure as a data: URI, `kind` being png or webp."""
    picture = io.BytesIO()
    figure.savefig(picture, format=kind, pil_kwargs={"quality": _PICTURE_QUALITY} if kind == "webp" else None)
    return _data_uri(f"image/{kind}", picture.getvalue())


def sound_uri(pcm: Int16[np.ndarray, "frames channels"], sample_rate: int) -> str:
    """The samples as a FLAC file in a data: URI."""
    sound = io.BytesIO()
    soundfile.write(sound, pcm, sample_rate, format="FLAC", subtype="PCM_16")
    return _data_uri("audio/flac", sound.getvalue())
