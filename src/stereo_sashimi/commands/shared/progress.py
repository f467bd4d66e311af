"""How far a command is and how fast: a bar on a terminal, else a line now and then, both on standard error."""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from stereo_sashimi.generation.results import Block, SamplingTotals
from stereo_sashimi.spec import AudioSpec

# Between two lines where standard error is no terminal.
LINE_SECONDS = 10.0


class Meter:
    """Counts the frames of a work.

    - `verb`: what is done, as "encoding". `rate`: frames of a second of audio. `frames`: in all, None without end.
    """

    def __init__(self, verb: str, rate: int, frames: int | None) -> None:
        self._verb, self._rate, self._frames, self._done = verb, rate, frames, 0.0
        self._bar = Progress(
            TextColumn(verb),
            BarColumn(),
            TextColumn("{task.fields[done]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task(verb, total=frames, done="")
        self._since = self._printed = time.monotonic()

    def __enter__(self) -> Self:
        if not self._bar.disable:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if not self._bar.disable:
            # Behind SIGHUP there is no terminal any more.
            with suppress(OSError):
                self._bar.stop()

    def add(self, frames: float) -> None:
        """So many frames more are done."""
        self._done += frames
        if not self._bar.disable:
            self._bar.update(self._task, completed=self._done, done=self._line())
        elif time.monotonic() - self._printed >= LINE_SECONDS:
            self._printed = time.monotonic()
            print(f"{self._verb}  {self._line()}", file=sys.stderr, flush=True)

    def _per_s(self) -> float:
        return self._done / max(time.monotonic() - self._since, 1e-9)

    def _line(self) -> str:
        whole = "" if self._frames is None else f" of {self._frames / self._rate:.1f}"
        return f"{self._done / self._rate:.1f}{whole} s  {speed(self._per_s(), self._rate)}"


class DrawMeter(Meter):
    """A Meter of a draw, for the blocks that go through `watch`; its speed is that of drawing alone.

    - `spec`: of the model. `n_frames`: that will be drawn, None without end.
    """

    def __init__(self, spec: AudioSpec, n_frames: int | None) -> None:
        super().__init__("sampling", spec.sample_rate, n_frames)
        self.totals = SamplingTotals(spec)

    def watch(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """Hand on the blocks."""
        for block in blocks:
            self.totals.add(block)
            if block.drawn:
                self.add(block.pcm.shape[1])
            yield block

    def _per_s(self) -> float:
        return self.totals.frames_per_s


def speed(frames_per_s: float, sample_rate: int) -> str:
    """`4,410 frames/s, 0.10 x real time`."""
    return f"{frames_per_s:,.0f} frames/s, {frames_per_s / sample_rate:.2g} x real time"
