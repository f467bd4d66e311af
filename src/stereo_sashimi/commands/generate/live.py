"""`generate.py stream=true`: samples are written, and played, while they are drawn, at constant memory."""

import sys
from pathlib import Path

from stereo_sashimi.audio.io import AudioError
from stereo_sashimi.audio.writers import PcmPipe, WavStream
from stereo_sashimi.commands.generate.generate_options import SamplingJob
from stereo_sashimi.commands.shared.progress import DrawMeter, speed
from stereo_sashimi.commands.shared.runs import relative
from stereo_sashimi.generation.results import Block, SamplingTotals
from stereo_sashimi.metrics.stereo import Levels
from stereo_sashimi.signals import PIPE, Deferral, Stopped


def draw_live(job: SamplingJob, signals: Deferral, pipe: PcmPipe | None) -> list[Path]:
    """Draw until the length is reached, a signal comes, nobody listens any more, or a WAV file is full.

    In all these cases the files get their names and their JSON. Before the first drawn frame they are deleted instead,
    and Stopped or the error goes on. Where the disk is full the files get their names, and AudioError tells them.

    Raises:
        SystemExit: After a signal, with its exit code.
    """
    sink = _Sink(job, signals, pipe)
    try:
        with DrawMeter(job.model.spec, job.n_frames) as meter:
            for block in meter.watch(job.blocks()):
                if not sink.write(block):
                    break
    except Stopped as stopped:
        sink.stopped = stopped
    except BaseException as error:
        signals.hold()
        kept, _ = sink.keep()
        told = f"What was drawn until then is in {kept}."
        if kept and isinstance(error, AudioError):
            raise AudioError(f"{error}\n  {told}") from error
        if kept:
            print(told, file=sys.stderr, flush=True)
        raise
    signals.hold()
    return sink.finish()


class _Sink:
    """Where the blocks go: one file a sample, the pipe, and the totals for the JSON."""

    def __init__(self, job: SamplingJob, signals: Deferral, pipe: PcmPipe | None) -> None:
        self.stopped: Stopped | None = None
        self._job, self._signals, self._pipe, self._full = job, signals, pipe, False
        self._files: list[WavStream] = []
        self._totals = SamplingTotals(job.model.spec)
        self._levels = [Levels(job.model.spec.sample_rate) for _ in job.options.seeds]

    def write(self, block: Block) -> bool:
        """Take a block; whether to go on.

        A signal ends everything at once until the first drawn frame is there; then it waits for the end of a block.
        """
        self._signals.hold()
        if self._signals.waiting is not None:
            self.stopped = Stopped(self._signals.waiting)
            return False
        if not self._files:
            for path in self._job.files:
                self._files.append(WavStream(path, self._job.model.spec))
                print(f"writing {relative(self._files[-1].part)}", flush=True)
        self._full = not all(file.fits(block.pcm.shape[1]) for file in self._files)
        if self._full:
            return False
        for file, pcm in zip(self._files, block.pcm, strict=False):
            file.write(pcm)
        self._totals.add(block)
        for levels, pcm in zip(self._levels, block.pcm, strict=True):
            levels.add(pcm)
        if self._pipe is not None:
            # A player that pauses stops us here, and must not keep a signal away.
            self._signals.release()
            try:
                self._pipe.write(block.pcm[0])
            except BrokenPipeError:
                self.stopped = Stopped(PIPE)
                return False
            except OSError as error:
                raise AudioError(f"standard output: cannot write on ({error.strerror}).") from error
            self._signals.hold()
        if not self._totals.frames:
            self._signals.release()
        return True

    def finish(self) -> list[Path]:
        """Give the files their names, write the JSON, print a line for each."""
        job, totals = self._job, self._totals
        _, errors = self.keep()
        if not totals.frames:
            assert self.stopped is not None
            raise self.stopped
        if errors:
            raise errors[0]
        why = self.stopped.name if self.stopped else "full" if self._full else None
        for i in range(len(self._files)):
            job.save_json(i, totals, self._levels[i].numbers(), why)
        # A filter is silent when its reader leaves.
        if not self._files and why != "SIGPIPE":
            rate = job.model.spec.sample_rate
            line = f"{totals.frames / rate:.2f} s drawn  {speed(totals.frames_per_s, rate)}"
            print(line, file=sys.stderr, flush=True)
        if self._full:
            print("Stopped: a WAV file holds no more than 4 GiB. stdout=true has no such limit.", flush=True)
        if self.stopped is not None:
            raise SystemExit(self.stopped.code)
        return job.files

    def keep(self) -> tuple[str, list[AudioError]]:
        """Give the files their names: which have them, and errors of others. Without a drawn frame, delete them."""
        kept, errors = [], []
        for file in self._files:
            if not self._totals.frames:
                file.discard()
                continue
            try:
                file.finish()
                kept.append(f"{relative(file.path)} ({file.frames / self._job.model.spec.sample_rate:.2f} s)")
            except AudioError as error:
                errors.append(error)
        return ", ".join(kept), errors
