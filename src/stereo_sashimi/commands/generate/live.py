"""`generate.py stream=true`: samples are written, and played, while they are drawn, at constant memory."""

import signal
import sys
from pathlib import Path

from stereo_sashimi.audio.io import AudioError
from stereo_sashimi.audio.writers import LiveFile, PcmPipe
from stereo_sashimi.commands.generate.job import Job, save_json
from stereo_sashimi.commands.shared.progress import DrawMeter, speed
from stereo_sashimi.commands.shared.runs import relative
from stereo_sashimi.commands.shared.signals import Signals, Stopped
from stereo_sashimi.generation.results import Block, SamplingTotals
from stereo_sashimi.metrics.stereo import Levels


def live(job: Job, signals: Signals, pipe: PcmPipe | None) -> list[Path]:
    """Draw until the length is reached, a signal comes, nobody listens any more, or a WAV file is full.

    In all these cases the files get their names and their JSON. Before the first drawn frame they are deleted instead,
    and Stopped or the error goes on. Where the disk is full the files get their names, and AudioError tells them.

    Raises SystemExit with the exit code after a signal.
    """
    taking = _Taking(job, signals, pipe)
    try:
        with DrawMeter(job.model.spec, job.n_frames) as meter:
            for block in meter.watch(job.blocks()):
                if not taking.take(block):
                    break
    except Stopped as stopped:
        taking.stopped = stopped
    except BaseException as error:
        signals.hold()
        kept = taking.keep()
        told = f"What was drawn until then is in {kept}."
        if kept and isinstance(error, AudioError):
            raise AudioError(f"{error}\n  {told}") from error
        if kept:
            print(told, file=sys.stderr, flush=True)
        raise
    signals.hold()
    return taking.finish()


class _Taking:
    """Where the blocks go: one file a sample, the pipe, and the totals for the JSON."""

    def __init__(self, job: Job, signals: Signals, pipe: PcmPipe | None) -> None:
        self.stopped: Stopped | None = None
        self._job, self._signals, self._pipe, self._full = job, signals, pipe, False
        self._files: list[LiveFile] = []
        self._tally = SamplingTotals(job.model.spec)
        self._levels = [Levels(job.model.spec.sample_rate) for _ in job.seeds]

    def take(self, block: Block) -> bool:
        """Write a block; whether to go on.

        A signal ends everything at once until the first drawn frame is there; then it waits for the end of a block.
        """
        self._signals.hold()
        if self._signals.number is not None:
            self.stopped = Stopped(self._signals.number)
            return False
        if len(self._files) < len(self._job.files):
            self._open()
        self._full = not all(file.fits(block.pcm.shape[1]) for file in self._files)
        if self._full:
            return False
        for file, pcm in zip(self._files, block.pcm, strict=False):
            file.write(pcm)
        self._tally.add(block)
        for levels, pcm in zip(self._levels, block.pcm, strict=True):
            levels.add(pcm)
        if self._pipe is not None:
            # A player that pauses stops us here, and must not keep a signal away.
            self._signals.release()
            try:
                self._pipe.write(block.pcm[0])
            except BrokenPipeError:
                self.stopped = Stopped(signal.SIGPIPE)
                return False
            except OSError as error:
                raise AudioError(f"standard output: cannot write on ({error.strerror}).") from error
            self._signals.hold()
        if not self._tally.frames:
            self._signals.release()
        return True

    def finish(self) -> list[Path]:
        """Give the files their names, write the JSON, print a line for each."""
        if not self._tally.frames:
            self.keep()
            assert self.stopped is not None
            raise self.stopped
        errors = []
        for file in self._files:
            try:
                file.finish()
            except AudioError as error:
                errors.append(error)
        if errors:
            raise errors[0]
        job, tally, spec = self._job, self._tally, self._job.model.spec
        why = signal.Signals(self.stopped.number).name if self.stopped else "full" if self._full else None
        for i, score in enumerate(tally.scores() if self._files else ()):
            prompt_scores = tally.prompt_scores()
            prompt_score = prompt_scores[i] if prompt_scores else None
            save_json(job, i, score, prompt_score, tally.frames_per_s, self._levels[i].numbers(), why)
        # A filter is silent when its reader leaves.
        if not self._files and why != "SIGPIPE":
            rate = speed(tally.frames_per_s, spec.sample_rate)
            print(f"{tally.frames / spec.sample_rate:.2f} s drawn  {rate}", file=sys.stderr, flush=True)
        if self._full:
            print("Stopped: a WAV file holds no more than 4 GiB. format=flac has no such limit.", flush=True)
        if self.stopped is not None:
            raise SystemExit(self.stopped.code)
        return job.files

    def keep(self) -> str:
        """Give the files their names as far as that can be done; which they are. Without a drawn frame, delete them."""
        kept, rate = [], self._job.model.spec.sample_rate
        for file in self._files:
            if not self._tally.frames:
                file.discard()
                continue
            try:
                file.finish()
            except AudioError:
                # The first error is the one that is told; this file is not among those that were kept.
                continue
            kept.append(f"{relative(file.path)} ({file.frames / rate:.2f} s)")
        return ", ".join(kept)

    def _open(self) -> None:
        for path in self._job.files:
            self._files.append(LiveFile(path, self._job.model.spec))
            print(f"writing {relative(self._files[-1].part)}", flush=True)
