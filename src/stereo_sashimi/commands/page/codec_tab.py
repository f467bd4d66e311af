"""What is behind the tab "Compress": an audio file becomes an .ssc file, and an .ssc file the audio file again."""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from threading import Event
from typing import NamedTuple

import numpy as np
import torch
from markupsafe import Markup

from stereo_sashimi.audio.io import AudioError, whole_file
from stereo_sashimi.audio.quantize import encode
from stereo_sashimi.codec import pcm_files as files
from stereo_sashimi.codec.batch_coder import BatchCoder
from stereo_sashimi.codec.coders import fitted
from stereo_sashimi.codec.coding import decode_blocks, encode_to
from stereo_sashimi.codec.container import CodecError, Reader, most_frames
from stereo_sashimi.commands.page.draw_tab import picture
from stereo_sashimi.commands.shared.loading import load_model
from stereo_sashimi.generation.stream import PREFILL_FRAMES, Stream
from stereo_sashimi.metrics.lossless import flac_bits
from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.plots.bits_curve import bits_curve
from stereo_sashimi.pretrained import MODELS, PROFILES
from stereo_sashimi.schema import check_choice
from stereo_sashimi.spec import LN2

# The curve is for the first seconds of a recording, which are read once more for it.
CURVE_SECONDS = 15

# Takes the share that is done, and a word.
Share = Callable[[float, str], object]


class _Stopped(ValueError):
    """Somebody pressed Stop, or the page ends; not an error of a file."""


class Coded(NamedTuple):
    """What the page shows, each once it is there: lines (or HTML: Markup), a file, a picture."""

    text: str
    file: Path | None = None
    bits: str | None = None


class CodecTab:
    """Codes and decodes, one file at a time, into `folder`; `ending` is set when the page ends, which ends the work."""

    def __init__(self, folder: Path, ending: Event) -> None:
        self.folder, self._ending = folder, ending

    def run(self, given: str, profile: str, on_share: Share, stop: Event) -> Iterator[Coded]:
        """Code or decode `given`, by its suffix as `compress`. Raises ValueError, also when `stop` is set."""
        self._go_on(stop)
        source = Path(given)
        if source.suffix.lower() == ".ssc":
            return self._decode(source, on_share, stop)
        check_choice(profile, "profile", PROFILES)
        return self._encode(source, profile, on_share, stop)

    def _encode(self, source: Path, profile: str, on_share: Share, stop: Event) -> Iterator[Coded]:
        name, output = PROFILES[profile], self._output(source.stem + ".ssc")
        model = _shipped(name)
        if (waiting := BatchCoder.preparation(model)) is not None:
            yield Coded(f"codec: {waiting}")
        with files.open_pcm(source) as pcm:
            try:
                flac: int | None = files.flac_bytes(pcm)
            except AudioError:
                flac = None
            started = time.monotonic()
            # As `compress` does: the best profile starts anew as seldom as it can.
            segment = most_frames(pcm.n_channels) if profile == "best" else None
            with whole_file(output) as file:
                tell = self._teller(on_share, "coding, then decoding to compare", pcm.frames, stop)
                size = encode_to(file, model, pcm, name=name, segment_frames=segment, on_frames=tell)
            spent = time.monotonic() - started
            rows = [("given", source.stat().st_size), ("FLAC -8", flac), (f".ssc ({name})", size)]
            text = _sizes(rows, pcm.frames * pcm.n_channels)
            text += (
                f"Verified: all {pcm.frames:,} frames were decoded again and compared. {spent:.1f} s, "
                f"{pcm.frames / max(spent, 1e-9):,.0f} frames/s with that."
            )
            yield Coded(text, output)
            if pcm.n_channels <= 2 and pcm.bits <= 16 and pcm.frames and flac:
                # The file is there already: without its curve it is a result too.
                with suppress(_Stopped):
                    yield Coded(text, bits=self._curve(model, pcm, name, on_share, stop))

    def _decode(self, source: Path, on_share: Share, stop: Event) -> Iterator[Coded]:
        with open(source, "rb") as coded:
            reader = Reader(coded, source.name)
            header = reader.header
            # The file's own words must not choose a path.
            if header.model not in MODELS:
                raise CodecError(
                    f"{source.name} was coded with a model that does not come with this package. Decode it with: "
                    "stereo-sashimi compress file.ssc checkpoint=<the model>"
                )
            output = self._output(source.stem + files.suffix_of_kind(header.container))
            blocks = decode_blocks(
                _shipped(header.model), reader, on_frames=self._teller(on_share, "decoding", header.frames, stop)
            )
            files.write(output, blocks, header, reader.envelope, source.name)
        seconds = header.frames / header.sample_rate
        text = (
            f"{output.name}: {header.frames:,} frames, {seconds:,.2f} s, {header.n_channels} channels, "
            f"{header.sample_rate} Hz, {header.bits} bit\n"
            f"Verified: its samples have the SHA-256 of what was coded ({header.model}, {header.package})."
        )
        yield Coded(text, output)

    def _output(self, name: str) -> Path:
        return Path(tempfile.mkdtemp(dir=self.folder)) / name

    def _go_on(self, stop: Event) -> None:
        if stop.is_set() or self._ending.is_set():
            raise _Stopped("Stopped; nothing was written.")

    def _teller(self, on_share: Share, word: str, frames: int, stop: Event) -> Callable[[float], None]:
        """Counts frames, tells their share, and ends the work where that is wanted."""
        done = 0.0

        def tell(more: float) -> None:
            nonlocal done
            done += more
            self._go_on(stop)
            on_share(done / max(1, frames), word)

        return tell

    def _curve(self, model: LanguageModel, pcm: files.PcmFile, name: str, on_share: Share, stop: Event) -> str:
        """Bits of each second under the model, which is carried through, and of FLAC files of a second each."""
        rate, n_channels = pcm.sample_rate, pcm.n_channels
        samples = pcm.read(0, min(pcm.frames, CURVE_SECONDS * rate)).astype(np.int16) << (16 - pcm.bits)
        stream = Stream(fitted(model, n_channels, pcm.bits), 1, "reference")
        tell, nats = self._teller(on_share, "bits of each second", len(samples), stop), []
        for first in range(0, len(samples), PREFILL_FRAMES):
            codes = torch.from_numpy(encode(samples[first : first + PREFILL_FRAMES], stream.spec))[None]
            nats.append(-stream.prefill(codes)[0].double().sum(-1).numpy())
            tell(codes.shape[1])
        ours = np.add.reduceat(np.concatenate(nats), np.arange(0, len(samples), rate)) / LN2
        flac = np.array([flac_bits(samples[i : i + rate], rate, pcm.bits) for i in range(0, len(samples), rate)])
        both = np.stack([ours, flac], axis=1) / n_channels
        names = [f"{name}, without what the file adds", "FLAC -8 of each second alone"]
        return picture(bits_curve(both, len(samples), rate, names), "bits of each second")


def _sizes(rows: list[tuple[str, int | None]], samples: int) -> Markup:
    """A table of sizes, against the first row; None where a format cannot hold the recording."""
    first, lines = rows[0][1] or 1, [Markup("<th></th><th>bytes</th><th>of the file</th><th>bits/sample</th>")]
    for name, size in rows:
        cells = ["-"] * 3 if size is None else [f"{size:,}", f"{size / first:.1%}", f"{8 * size / max(1, samples):.3f}"]
        lines.append(Markup("").join(Markup("<td>{}</td>").format(cell) for cell in (name, *cells)))
    return Markup("<table>{}</table>").format(Markup("").join(Markup("<tr>{}</tr>").format(line) for line in lines))


@lru_cache(maxsize=len(PROFILES))
def _shipped(name: str) -> LanguageModel:
    return load_model(name, "")[1]
