"""What is behind the tab "Draw": models that are kept between draws, and draws as streams of what the page shows."""

import tempfile
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from threading import Event
from typing import NamedTuple

import numpy as np
import torch
from markupsafe import Markup
from matplotlib.figure import Figure

from stereo_sashimi.audio.io import write_pcm
from stereo_sashimi.commands.generate.generate_options import GenerateOptions
from stereo_sashimi.commands.page.live_wav import LiveWav
from stereo_sashimi.commands.shared.loading import load_model, model_line
from stereo_sashimi.commands.shared.pages import picture_uri
from stereo_sashimi.commands.shared.progress import speed
from stereo_sashimi.commands.shared.runs import find_checkpoint, relative
from stereo_sashimi.distributions.sampler import Sampler
from stereo_sashimi.generation.engines.engine import resolve
from stereo_sashimi.generation.results import Block, SamplingTotals
from stereo_sashimi.generation.sampling import blocks
from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.models.locate import finished_runs
from stereo_sashimi.models.model_files import HUB
from stereo_sashimi.plots.bits_curve import bits_curve
from stereo_sashimi.plots.sheet import sheet
from stereo_sashimi.pretrained import MODELS, PROFILES
from stereo_sashimi.spec import LN2

# Seconds between two lines of a draw.
LINE_S = 0.25
# What a draw may be long, in seconds.
LONGEST_S = 120
# Up to here the numbers of a browser are whole.
_LARGEST_SEED = 2**53
# Draws that can be listened to; what is drawn is in memory for as long.
_MOST_LIVE = 4


class Drawn(NamedTuple):
    """What the page shows of a draw, each once it is there: lines, a key of `DrawTab.live`, the file, two pictures."""

    text: str
    live: str | None = None
    file: Path | None = None
    sheet: str | None = None
    bits: str | None = None


class DrawTab:
    """Draws, one at a time; files go into `folder`. `ending` is set when the page ends, and a draw ends with it.

    `checkpoint`, `runs`, `engine`: as the keys of `generate`. `live` has what can be listened to, by key.
    """

    def __init__(
        self, checkpoint: str | None, runs: str, device: torch.device, engine: str, folder: Path, ending: Event
    ) -> None:
        self.live: dict[str, LiveWav] = {}
        self._first, self._runs, self._device, self._engine = checkpoint, runs, device, engine
        self.folder, self._ending = folder, ending

    def names(self) -> list[str]:
        """Models that are offered: the one that was given, those that come along, the finished runs, newest first."""
        shipped = [name for name in MODELS if name not in PROFILES.values()]
        runs = [relative(run) for run in finished_runs(Path(self._runs))[0]]
        return list(dict.fromkeys([*([self._first] if self._first else []), *shipped, *runs]))

    def model(self, name: str) -> LanguageModel:
        """The model that `name` means, as checkpoint= does, on this machine. Raises ValueError."""
        if not name:
            raise ValueError("No model is chosen. Choose one, or type the path of one.")
        if str(name).startswith(HUB):
            raise ValueError(
                f"The page asks no other machine. Start it with checkpoint={name}, or pull the model first."
            )
        path = find_checkpoint(name, self._runs)
        return _kept(path, path.stat().st_mtime_ns, self._device)

    def about(self, name: str) -> tuple[str, bool]:
        """A line on a model, and whether top-p has a meaning for it."""
        model = self.model(name)
        return model_line(model), model.config.decoder.kind == "categorical"

    def draw(
        self,
        stop: Event,
        name: str,
        seed: float | None,
        temperature: float,
        top_p: float,
        seconds: float | None,
        prompt: str | None,
        prompt_seconds: float | None,
    ) -> Iterator[Drawn]:
        """Draw to the end, or until `stop` is set. Raises ValueError as `generate`, before anything is drawn."""
        unbegun = Drawn("Stopped before the first frame.")
        if stop.is_set():
            yield unbegun
            return
        if seed is None or seconds is None:
            raise ValueError("Seed and seconds need a number each.")
        _check(seed, seconds, prompt_seconds or 0)
        model, device = self.model(name), self._device
        spec = model.spec
        options = GenerateOptions(
            device, Sampler(temperature, None, top_p), (int(seed),), seconds, prompt,
            (prompt_seconds or None) if prompt else None, prompt_resample=prompt is not None,
        )  # fmt: skip
        n_frames, (begin, _) = options.n_frames(spec), options.read_prompt(spec)
        assert n_frames is not None
        engine = resolve(self._engine, model)
        drawing = blocks(model, n_frames, options.seeds, begin, options.sampler, engine.name)
        if (waiting := engine.preparation(model)) is not None:
            yield Drawn(f"engine {engine.name}: {waiting}")
        live, key = LiveWav(spec, n_frames + (0 if begin is None else len(begin))), f"{time.time_ns()}"
        self.live = dict([*self.live.items(), (key, live)][-_MOST_LIVE:])
        totals, drawn, shown = SamplingTotals(spec), [], 0.0
        yield Drawn("reading the prompt" if prompt else "drawing", key)
        try:
            for block in drawing:
                live.write(block.pcm[0])
                totals.add(block)
                drawn.append(block)
                if stop.is_set() or self._ending.is_set():
                    break
                if totals.frames and time.monotonic() - shown > LINE_S:
                    shown = time.monotonic()
                    yield Drawn(f"{_line(totals, n_frames, spec.sample_rate)}\n{totals.scores()[0]}")
        finally:
            live.close()
        if not totals.frames:
            yield unbegun
            return
        pcm = np.concatenate([block.pcm[0] for block in drawn])
        file = Path(tempfile.mkdtemp(dir=self.folder)) / options.file_names()[0]
        write_pcm(file, pcm, spec.sample_rate)
        # The name has the temperature and top-p that were used, which the browser may have moved into their range.
        text = f"{_line(totals, n_frames, spec.sample_rate)}\n{totals.scores()[0]}\n{file.name}"
        yield Drawn(text, file=file)
        curve = bits_curve(
            bits_each_second(drawn, spec.sample_rate), totals.frames, spec.sample_rate,
            list(totals.scores()[0].channel_bits_per_sample),
        )  # fmt: skip
        page = sheet(pcm, spec.sample_rate, file.name, totals.prompt_frames)
        words = "bits of each second under the model" + ("" if begin is None else ", from where the prompt ends")
        yield Drawn(text, sheet=picture(page, "waveforms, spectrograms and stereo image"), bits=picture(curve, words))


def _check(seed: float, seconds: float, prompt_seconds: float) -> None:
    """Raise ValueError naming the field: the bounds that gradio checks are answered without a name."""
    if not 0 < seconds <= LONGEST_S:
        raise ValueError(f"Seconds must be above 0 and at most {LONGEST_S}; got {seconds:.16g}.")
    if not 0 <= seed <= _LARGEST_SEED or seed % 1:
        raise ValueError(f"Seed must be a whole number from 0 to {_LARGEST_SEED}; got {seed:.16g}.")
    if not prompt_seconds >= 0:
        raise ValueError(f"Prompt seconds must be 0 (all of it) or more; got {prompt_seconds:.16g}.")


def bits_each_second(drawn: list[Block], sample_rate: int) -> np.ndarray:
    """Bits (seconds, channels) of the frames that were drawn; those of a block are dealt out evenly to its frames."""
    some = [block for block in drawn if block.drawn]
    frames = np.cumsum([0, *(block.pcm.shape[1] for block in some)])
    bits = np.cumsum(np.stack([np.zeros_like(some[0].nats[0]), *(block.nats[0] for block in some)]), axis=0) / LN2
    edges = np.append(np.arange(0, frames[-1], sample_rate), frames[-1])
    return np.diff(np.stack([np.interp(edges, frames, channel) for channel in bits.T], axis=1), axis=0)


def picture(figure: Figure, words: str) -> Markup:
    """The figure as HTML that needs no file, below what it shows."""
    uri = picture_uri(figure, "webp")
    return Markup('<div class="picture"><p>{}</p><img alt="{}" src="{}"></div>').format(words, words, uri)


def _line(totals: SamplingTotals, n_frames: int, rate: int) -> str:
    return f"{totals.frames / rate:.2f} of {n_frames / rate:.2f} s  {speed(totals.frames_per_s, rate)}"


@lru_cache(maxsize=3)
def _kept(path: Path, changed: int, device: torch.device) -> LanguageModel:
    """The model in a file; `changed`: when it was written, as a run goes on writing its checkpoints."""
    return load_model(str(path), "")[1].to(device)
