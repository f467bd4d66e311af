"""Preparation: MUSDB tracks (`sources.py`) to folders of 16-bit clips that `datamodule.py` reads.

Each target of a track is one unit of work. Its files are renamed into place when complete and then noted in
`<out>/.journal/`, so a stopped run goes on where it was; `manifest.json` replaces the journal at the end. Both are in
`manifest.py`, the command line in `prepare_command.py`.
"""

import errno
import math
import multiprocessing
import shutil
import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stereo_sashimi.audio.io import AudioError, write_pcm
from stereo_sashimi.data.corpora import sources as src
from stereo_sashimi.data.manifest import (
    JOURNAL,
    SCHEMA_VERSION,
    Record,
    earlier_records,
    fingerprint,
    is_intact,
    measure,
    write_json,
)
from stereo_sashimi.data.split import SPLITS, find_audio
from stereo_sashimi.signals import handling

# Set in worker processes; true once the run is to stop.
_stop: Any = None


@dataclass
class Prepared:
    """Manifest `records`, files `written`, files `kept` from before, `failures`, and `notes` for the user."""

    records: list[Record] = field(default_factory=list)
    written: int = 0
    kept: int = 0
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    disk_full: bool = False


@dataclass(frozen=True)
class _Job:
    """One track, with the records that an earlier run left of each of its targets; this travels to a worker."""

    out: Path
    settings: Record
    track: tuple[src.Source, ...]
    before: tuple[list[Record], ...]


def prepare_musdb(
    root: Path | None,
    out: Path,
    *,
    targets: Sequence[str] | None = None,
    clip_seconds: float | None = None,
    pad: bool = False,
    jobs: int = 1,
    split_channels: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Prepared:
    """Write 16-bit WAV files of all tracks to `out`/{train,valid,test}/, and `out`/manifest.json if all succeed.

    - `root`: MUSDB18-HQ, MUSDB18 or a prepared stereo folder; None: the sample in stempeg's wheel.
    - `targets`: any of `sources.TARGETS`; None: all there are, of the sample the mixture.
    - `clip_seconds`: length of a clip, None: whole tracks. `pad`: zero-pad the last clip instead of dropping it.
    - `split_channels`: one mono file per channel. `jobs`: processes; 1 works in this one.
    - `progress`: called with the number of finished tracks and of all.

    Files that an earlier run with the same settings recorded are kept if size and SHA-256 agree. A track that fails is
    noted in `failures` and does not stop the others, except when the disk is full.
    Raises SourceError or AudioError, naming the option or file, for anything that concerns the whole run.
    """
    out = Path(out)
    if clip_seconds is not None and not (math.isfinite(clip_seconds) and clip_seconds * src.SAMPLE_RATE >= 1):
        raise src.SourceError(f"--clip-seconds must be at least 1/{src.SAMPLE_RATE}; got {clip_seconds}.")
    if pad and clip_seconds is None:
        raise src.SourceError("--pad fills the last clip with zeros, so it needs --clip-seconds.")
    if jobs < 1:
        raise src.SourceError(f"--jobs must be 1 or more; got {jobs}.")
    if targets is not None:
        targets = src.check_targets(targets)
    if root is None:
        kind, tracks = "sample", src.sample_tracks(targets or src.TARGETS[:1])
    elif out.resolve() == Path(root).resolve():
        raise src.SourceError(f"{out}: --out must be another folder than --root.")
    else:
        kind, tracks = src.list_tracks(root, targets)
    settings = {
        "source": kind,
        "targets": list(src.check_targets(list({source.target for track in tracks for source in track}))),
        "clip_frames": None if clip_seconds is None else round(clip_seconds * src.SAMPLE_RATE),
        "pad": pad,
        "split_channels": split_channels,
    }
    before = earlier_records(out, settings)
    _make_folders(out)
    write_json(out / JOURNAL / "settings.json", {"settings": settings})
    work = [_Job(out, settings, t, tuple(before.get((s.split, s.label, s.target), []) for s in t)) for t in tracks]
    result = Prepared()
    with closing(_run(work, jobs)) as finished:
        for number, done in enumerate(finished, start=1):
            result.records += done.records
            result.written += done.written
            result.kept += done.kept
            result.failures += done.failures
            progress(number, len(work))
            if done.disk_full:
                break
    result.records.sort(key=lambda record: (SPLITS.index(record["split"]), record["path"]))
    if not result.failures:
        _finish(out, settings, result)
    return result


def _finish(out: Path, settings: Record, result: Prepared) -> None:
    if not result.records:
        raise src.SourceError(f"{out}: no track is as long as --clip-seconds; use shorter clips, or --pad.")
    present = {record["split"] for record in result.records}
    result.notes += [f"{out / s}: empty; training needs train, valid and test." for s in SPLITS if s not in present]
    known = {record["path"] for record in result.records}
    if strangers := [path for path in find_audio(out) if path.relative_to(out).as_posix() not in known]:
        result.notes.append(f"{strangers[0]}: not of this run; it and {len(strangers) - 1} more would be trained on.")
    manifest = {"schema_version": SCHEMA_VERSION, "settings": settings, "files": result.records}
    write_json(out / "manifest.json", manifest)
    shutil.rmtree(out / JOURNAL)


def _run(work: list[_Job], jobs: int) -> Generator[Prepared, None, None]:
    if jobs == 1 or len(work) < 2:
        yield from map(_prepare_track, work)
        return
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    with ProcessPoolExecutor(min(jobs, len(work)), context, _set_stop, (stop,)) as pool:
        try:
            # Processes started here inherit it: after Ctrl-C only the parent speaks, and stops them by their event.
            with handling(signal.SIGINT, signal.SIG_IGN):
                pending = {pool.submit(_prepare_track, job): job for job in work}
            for future in as_completed(pending):
                try:
                    yield future.result()
                except BrokenProcessPool:
                    file = pending[future].track[0].path
                    yield Prepared(failures=[f"{file}: its process died, perhaps of no memory; use fewer --jobs."])
        finally:
            # Early after Ctrl-C or a full disk: workers stop when the file that they are writing is complete.
            stop.set()
            pool.shutdown(cancel_futures=True)


def _prepare_track(job: _Job) -> Prepared:
    done = Prepared()
    for source, before in zip(job.track, job.before, strict=True):
        try:
            _prepare_unit(job, source, before, done)
        except (ValueError, OSError) as error:
            cause = error if isinstance(error, OSError) else error.__cause__
            done.disk_full = isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)
            text = f"{error.filename or source.path}: {error.strerror}." if isinstance(error, OSError) else str(error)
            done.failures.append(text)
            break
    return done


def _prepare_unit(job: _Job, source: src.Source, before: list[Record], done: Prepared) -> None:
    """One target of one track: keep the files that are right, write the others, note all of them in the journal."""
    start_of_path = f"{source.split}/{source.stem}"
    size = source.path.stat().st_size
    intact = {
        record["path"]: record
        for record in before
        if record["source_bytes"] == size and record["path"].startswith(start_of_path) and is_intact(job.out, record)
    }
    if before and len(intact) == len(before):
        done.records += before
        done.kept += len(before)
        return
    recording = src.open_source(source)
    records = []
    for index, start, frames, padding in _clips(recording.first, recording.last, job.settings):
        pcm, clipped = recording.read(start, frames)
        pcm = np.pad(pcm, ((0, padding), (0, 0)))
        channels: list[int | None] = list(range(pcm.shape[1])) if job.settings["split_channels"] else [None]
        for channel in channels:
            part = slice(None) if channel is None else slice(channel, channel + 1)
            path = start_of_path + index + ("" if channel is None else f"_ch{channel}") + ".wav"
            if path in intact:
                records.append(intact[path])
                done.kept += 1
                continue
            if _stop is not None and _stop.is_set():
                return
            try:
                write_pcm(job.out / path, np.ascontiguousarray(pcm[:, part]), src.SAMPLE_RATE)
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(job.out / path)) from error
            record = {
                "path": path,
                "track": source.track,
                "target": source.target,
                "split": source.split,
                "source": source.label,
                "source_bytes": size,
                "decoder": recording.decoder,
                "start_frame": start,
                "frames": frames + padding,
                "pad_frames": padding,
                "sample_rate": src.SAMPLE_RATE,
                "channel": channel,
                **measure(pcm[:, part]),
                "clipped": sum(clipped[part]),
                **fingerprint(job.out / path),
            }
            records.append(record)
            done.written += 1
    write_json(job.out / JOURNAL / f"{start_of_path}.json", {"files": records})
    done.records += records


def _clips(first: int, last: int, settings: Record) -> Iterator[tuple[str, int, int, int]]:
    """File name part, first frame, frames and zeros to append, for each clip of frames `first` to `last`."""
    length = settings["clip_frames"]
    if length is None:
        yield "", first, last - first, 0
        return
    count = -(-(last - first) // length) if settings["pad"] else (last - first) // length
    digits = max(3, len(str(count - 1)))
    for number in range(count):
        start = first + number * length
        frames = min(length, last - start)
        yield f"_{number:0{digits}d}", start, frames, length - frames


def _make_folders(out: Path) -> None:
    try:
        for split in SPLITS:
            (out / split).mkdir(parents=True, exist_ok=True)
            (out / JOURNAL / split).mkdir(parents=True, exist_ok=True)
            # What a killed process left.
            for leftover in (out / split).glob(".*.part"):
                leftover.unlink()
    except OSError as error:
        raise AudioError(f"{error.filename or out}: cannot write there ({error.strerror}); see --out.") from error


def _set_stop(stop: Any) -> None:
    global _stop
    _stop = stop
