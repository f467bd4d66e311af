"""How a run ends before its end: SIGTERM, SIGHUP, Ctrl-C or an error; run.json tells which."""

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.trainer.states import TrainerStatus
from pytorch_lightning.utilities.exceptions import SIGTERMException

from stereo_sashimi.audio.io import write_whole
from stereo_sashimi.commands.shared.runs import STATUS_FILE, relative
from stereo_sashimi.commands.train.resume import resume_command
from stereo_sashimi.signals import handling, known
from stereo_sashimi.tasks.checkpoints import LastCheckpoint
from stereo_sashimi.tasks.lightning_internals import find

# As a shell reports a process that a signal has ended: 128 + its number.
CTRL_C, TERMINATED = 130, 143


class CtrlC(Callback):
    """Raises KeyboardInterrupt, and once more at the next batch where python drops it: inside `__del__` of a loader."""

    def __init__(self) -> None:
        self.pressed = False

    def note(self, number: int, frame: FrameType | None) -> None:
        """The handler of the signal."""
        self.pressed = True
        raise KeyboardInterrupt

    def hush(self, unraisable: Any) -> None:
        """The hook for what python drops: that is no news."""
        if not isinstance(unraisable.exc_value, KeyboardInterrupt):
            sys.__unraisablehook__(unraisable)

    def on_train_batch_start(self, *args: Any) -> None:
        """Stop if it is still to be done."""
        if self.pressed:
            raise KeyboardInterrupt

    on_validation_batch_start = on_test_batch_start = on_train_batch_start  # type: ignore[assignment]


@contextmanager
def stoppable(trainer: pl.Trainer, folder: Path, result: dict[str, Any], resumed: str | None) -> Iterator[None]:
    """Train inside; whatever ends the block early is written into run.json first.

    - `result`: what run.json holds; gets `status` interrupted or failed, and `steps`.
    - `resumed`: the checkpoint that this run came from, to go on with where it saved none of its own.

    Ctrl-C and SIGTERM raise SystemExit with the exit code, once the command to go on is printed; errors pass through.
    SIGHUP, of a terminal that closes, counts as SIGTERM, and nothing as nohup wants it.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        # Lightning's handler calls this one too. Once it has noted the signal its loops stop between two batches.
        if not trainer.received_sigterm:
            raise SIGTERMException

    ctrl_c = CtrlC()
    trainer.callbacks.append(ctrl_c)  # type: ignore[attr-defined]
    # A job in the background ignores it, and goes on doing so.
    before, sys.unraisablehook = sys.unraisablehook, ctrl_c.hush
    handler = signal.getsignal(signal.SIGINT)
    note = ctrl_c.note if handler is signal.default_int_handler else handler
    (closing,) = known("SIGHUP") or (None,)
    hang_up = signal.SIG_DFL if closing is None else signal.getsignal(closing)
    closed = (lambda *_: signal.raise_signal(signal.SIGTERM)) if hang_up is signal.SIG_DFL else hang_up
    with handling(signal.SIGTERM, stop), handling(signal.SIGINT, note), handling(closing, closed):
        try:
            yield
        except BaseException as error:
            # What is written from here on is written to its end: a second signal changes nothing.
            with handling(signal.SIGTERM, signal.SIG_IGN), handling(signal.SIGINT, signal.SIG_IGN):
                interrupted, code = _cause(error, trainer, ctrl_c.pressed)
                result |= {"status": "interrupted" if interrupted else "failed", "steps": trainer.global_step}
                keeper = find(trainer, LastCheckpoint)
                last = None if keeper is None else keeper.saved
                result["last"] = None if last is None else relative(last)
                write_status(trainer, folder, result)
                if interrupted and trainer.is_global_zero:
                    found = resumed if last is None else last
                    go_on = "Nothing was saved yet." if found is None else f"Go on with: {resume_command(found)}"
                    with suppress(OSError):  # behind SIGHUP there is no terminal any more
                        print(f"\nInterrupted after {trainer.global_step} steps. {go_on}", file=sys.stderr, flush=True)
            if interrupted:
                raise SystemExit(code) from None
            raise
        finally:
            sys.unraisablehook = before


def _cause(error: BaseException, trainer: pl.Trainer, pressed: bool) -> tuple[bool, int]:
    """Whether someone wanted the run to stop, and the exit code. `pressed`: Ctrl-C, of which python may have dropped
    the exception, and which leaves an error behind where it came while numba compiled.
    """
    # A loader's worker that the signal ended first is an error here; the signal is still the reason.
    if isinstance(error, SIGTERMException) or trainer.received_sigterm:
        return True, TERMINATED
    # Lightning turns Ctrl-C into SystemExit once its callbacks have saved.
    by_lightning = isinstance(error, SystemExit) and trainer.state.status == TrainerStatus.INTERRUPTED
    # Where Ctrl-C comes while workers start, Lightning's clean-up behind it fails.
    reason: BaseException | None = error
    while reason is not None and not isinstance(reason, KeyboardInterrupt):
        reason = reason.__context__
    return pressed or by_lightning or reason is not None, CTRL_C


def check_sigterm(trainer: pl.Trainer) -> None:
    """Stop if SIGTERM came when the loop that has just ended did not look any more."""
    if trainer.received_sigterm:
        raise SIGTERMException


def write_status(trainer: pl.Trainer, folder: Path, result: dict[str, Any]) -> None:
    """Write run.json, in one step, on the first process."""
    if trainer.is_global_zero:
        write_whole(folder / STATUS_FILE, (json.dumps(result, indent=2) + "\n").encode())
