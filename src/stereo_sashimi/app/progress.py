"""How far a draw is and how fast: a bar on a terminal, else a line now and then, both on standard error."""

import sys
import time
from collections.abc import Iterable, Iterator
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from stereo_sashimi.generation.tally import Block, Tally
from stereo_sashimi.spec import AudioSpec

# Between two lines where standard error is no terminal.
LINE_SECONDS = 10.0


class Meter:
    """Shows the draw whose blocks go through `watch`.

    - `spec`: of the model. `n_frames`: that will be drawn, None without end.
    """

    def __init__(self, spec: AudioSpec, n_frames: int | None) -> None:
        self._rate, self._n_frames, self._tally = spec.sample_rate, n_frames, Tally(spec)
        self._bar = Progress(
            TextColumn("sampling"),
            BarColumn(),
            TextColumn("{task.fields[done]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task("sampling", total=n_frames, done="")
        self._printed = time.monotonic()

    def __enter__(self) -> "Meter":
        if not self._bar.disable:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._bar.disable:
            self._bar.stop()

    def watch(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """Hand on the blocks."""
        for block in blocks:
            self._tally.add(block)
            if block.drawn:
                self._show()
            yield block

    def _show(self) -> None:
        frames = self._tally.frames
        if not self._bar.disable:
            self._bar.update(self._task, completed=frames, done=self._line())
        elif time.monotonic() - self._printed >= LINE_SECONDS:
            self._printed = time.monotonic()
            print(f"sampling  {self._line()}", file=sys.stderr, flush=True)

    def _line(self) -> str:
        whole = "" if self._n_frames is None else f" of {self._n_frames / self._rate:.1f}"
        return f"{self._tally.frames / self._rate:.1f}{whole} s  {speed(self._tally.frames_per_s, self._rate)}"


def speed(frames_per_s: float, sample_rate: int) -> str:
    """`4,410 frames/s, 0.10 x real time`."""
    return f"{frames_per_s:,.0f} frames/s, {frames_per_s / sample_rate:.2g} x real time"
