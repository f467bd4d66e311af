"""The preprocess command: MUSDB tracks (`sources.py`) to folders of 16-bit clips that `datamodule.py` reads.

Each target of a track is one unit of work. Its files are renamed into place when complete and then noted in
`<out>/.journal/`, so a stopped run goes on where it was; `manifest.json` replaces the journal at the end.
"""

import argparse
import errno
import hashlib
import json
import math
import multiprocessing
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int16

from stereo_sashimi.audio.io import write_pcm
from stereo_sashimi.data.sources import (
    SAMPLE_RATE,
    TARGETS,
    Source,
    SourceError,
    check_targets,
    list_tracks,
    open_source,
    sample_tracks,
)
from stereo_sashimi.data.split import SPLITS, find_audio

SCHEMA_VERSION = 1
JOURNAL = ".journal"

Record = dict[str, Any]

_HOW_TO_GET = f"""no MUSDB folder was given: use --root FOLDER or set MUSDB_PATH.
  Get MUSDB18-HQ (about 22.7 GB, WAV) from https://zenodo.org/records/3338373. It is for educational, non-commercial
  use; the licence of each track is on that page. FOLDER is the one that holds train/ and test/.
  Without a download: --sample makes a 6-second data set from the stem file in the stempeg package."""


@dataclass(frozen=True)
class Settings:
    """What the contents of a prepared folder depend on, besides the tracks; one folder has one setting.

    - `source`: musdb18hq, musdb18, prepared or sample. `targets`: in the order of TARGETS.
    - `clip_frames`: frames in a clip, None for whole tracks. `pad`: zero-pad the last clip instead of dropping it.
    - `split_channels`: one mono file per channel.
    """

    source: str
    targets: tuple[str, ...]
    clip_frames: int | None
    pad: bool
    split_channels: bool

    def to_dict(self) -> Record:
        """Plain fields, for JSON."""
        return {**vars(self), "targets": list(self.targets), "sample_rate": SAMPLE_RATE, "bits": 16}


@dataclass
class Prepared:
    """What a run did: files `written`, files `kept` from before, `failures` (one message per failed track)."""

    out: Path
    written: int = 0
    kept: int = 0
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Job:
    """One track, with the records of its units from an earlier run; this is what travels to a worker."""

    out: Path
    settings: Settings
    sources: tuple[Source, ...]
    before: dict[str, list[Record]]


@dataclass
class _Done:
    records: list[Record] = field(default_factory=list)
    written: int = 0
    kept: int = 0
    error: str | None = None
    disk_full: bool = False


class _Stop(Exception):
    """The run was interrupted while a worker was busy."""


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
    """Write 16-bit WAV files of all tracks to `out`/{train,valid,test}/, and `out`/manifest.json when all succeed.

    - `root`: MUSDB18-HQ, MUSDB18 or a prepared stereo folder; None: the sample in stempeg's wheel.
    - `targets`: any of TARGETS; None: all, or for the sample and prepared folders the mixture.
    - `clip_seconds`: length of a clip; None: whole tracks. `pad`: see Settings.
    - `jobs`: processes; 1 works in this one. `progress`: called with finished and all tracks.

    Files that an earlier run recorded are kept if their size and SHA-256 agree. A track that fails does not stop the
    others; a full disk does. Raises SourceError for anything that is wrong before the first track is touched.
    """
    out = Path(out)
    if clip_seconds is not None and not (math.isfinite(clip_seconds) and round(clip_seconds * SAMPLE_RATE) >= 1):
        raise SourceError(f"--clip-seconds must be at least 1/{SAMPLE_RATE}; got {clip_seconds}.")
    if pad and clip_seconds is None:
        raise SourceError("--pad fills the last clip with zeros; it needs --clip-seconds.")
    if jobs < 1:
        raise SourceError(f"--jobs must be 1 or more; got {jobs}.")
    if root is not None and not Path(root).is_dir():
        raise SourceError(f"{root}: there is no such folder (--root or MUSDB_PATH).")
    if root is not None and out.resolve() == Path(root).resolve():
        raise SourceError(f"{out}: --out must not be the source folder.")
    whole = root is not None and not (Path(root) / "manifest.json").is_file()
    targets = check_targets((TARGETS if whole else TARGETS[:1]) if targets is None else targets)
    kind, tracks = ("sample", sample_tracks(targets)) if root is None else list_tracks(root, targets)
    frames = None if clip_seconds is None else round(clip_seconds * SAMPLE_RATE)
    settings = Settings(kind, targets, frames, pad, split_channels)

    before = _earlier_records(out, settings)
    result = Prepared(out)
    try:
        for split in SPLITS:
            (out / split).mkdir(parents=True, exist_ok=True)
            # A killed process may have left temporary files.
            for leftover in (out / split).glob(".*.part"):
                leftover.unlink()
        _write_json(out / JOURNAL / "settings.json", settings.to_dict())
    except OSError as error:
        raise SourceError(f"{out}: cannot write there ({error.strerror}).") from error
    work = [_Job(out, settings, t, {s.stem: before.get((s.split, s.stem), []) for s in t}) for t in tracks]
    records: list[Record] = []
    for done_tracks, done in enumerate(_run(work, jobs), start=1):
        records += done.records
        result.written += done.written
        result.kept += done.kept
        result.failures += [done.error] if done.error else []
        progress(done_tracks, len(work))
        if done.disk_full:
            break
    if not result.failures:
        _finish(out, settings, records, result)
    return result


def _finish(out: Path, settings: Settings, records: list[Record], result: Prepared) -> None:
    records.sort(key=lambda r: (SPLITS.index(r["split"]), r["path"]))
    if not records:
        raise SourceError(f"{out}: no track is as long as --clip-seconds; use shorter clips, or --pad.")
    for split in SPLITS:
        if not any(record["split"] == split for record in records):
            result.notes.append(f"{out / split} is empty; training needs files in train/, valid/ and test/.")
    known = {record["path"] for record in records}
    if strangers := [p for p in find_audio(out) if p.relative_to(out).as_posix() not in known]:
        result.notes.append(f"{len(strangers)} audio files in {out} are not of this run, such as {strangers[0]}.")
    manifest = {"schema_version": SCHEMA_VERSION, "settings": settings.to_dict(), "files": records}
    try:
        _write_json(out / "manifest.json", manifest)
        shutil.rmtree(out / JOURNAL)
    except OSError as error:
        raise SourceError(f"{out / 'manifest.json'}: cannot be written ({error.strerror}).") from error


def _run(work: list[_Job], jobs: int) -> Iterator[_Done]:
    if jobs == 1 or len(work) < 2:
        yield from map(_prepare_track, work)
        return
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    with ProcessPoolExecutor(min(jobs, len(work)), context, _set_stop, (stop,)) as pool:
        try:
            with _children_ignore_interrupts():
                pending: dict[Future[_Done], _Job] = {pool.submit(_prepare_track, job): job for job in work}
            while pending:
                for future in wait(pending, return_when=FIRST_COMPLETED).done:
                    job = pending.pop(future)
                    try:
                        yield future.result()
                    except BrokenProcessPool:
                        reason = "its worker process died, perhaps for lack of memory; use fewer --jobs"
                        yield _Done(error=f"{job.sources[0].path}: {reason}.")
        finally:
            # Reached early after Ctrl-C or a full disk: workers stop at the end of the file they are writing.
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)


def _prepare_track(job: _Job) -> _Done:
    done = _Done()
    for source in job.sources:
        try:
            _prepare_unit(job, source, done)
        except _Stop:
            return done
        except (ValueError, OSError) as error:
            cause = error if isinstance(error, OSError) else error.__cause__
            number = cause.errno if isinstance(cause, OSError) else None
            text = f"{error.filename or source.path}: {error.strerror}" if isinstance(error, OSError) else str(error)
            done.error, done.disk_full = text, number in (errno.ENOSPC, errno.EDQUOT)
            return done
    return done


def _prepare_unit(job: _Job, source: Source, done: _Done) -> None:
    """One target of one track: keep the files that are right, write the others, note all of them in the journal."""
    size = source.path.stat().st_size
    before = job.before[source.stem]
    intact = {r["path"]: r for r in before if r["source_bytes"] == size and _is_intact(job.out / r["path"], r)}
    if before and len(intact) == len(before):
        done.records += before
        done.kept += len(before)
        return
    recording = open_source(source)
    records: list[Record] = []
    for suffix, start, frames, padding in _clips(recording.first, recording.last, job.settings):
        pcm, clipped = recording.read(start, frames)
        pcm = np.pad(pcm, ((0, padding), (0, 0)))
        pieces = [("", None, pcm, clipped)]
        if job.settings.split_channels:
            # The clipped values of a piece are counted over its channels together, so they are counted again here.
            pieces = [
                (f"_ch{c}", c, np.ascontiguousarray(pcm[:, c : c + 1]), clipped) for c in range(pcm.shape[1])
            ]
        for ending, channel, piece, count in pieces:
            path = f"{source.split}/{source.stem}{suffix}{ending}.wav"
            if path in intact:
                records.append(intact[path])
                done.kept += 1
                continue
            if _stop is not None and _stop.is_set():
                raise _Stop
            file = job.out / path
            try:
                write_pcm(file, piece, SAMPLE_RATE)
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(file)) from error
            records.append(_record(source, path, file, piece, start, padding, channel, count, size, recording.decoder))
            done.written += 1
    _write_json(job.out / JOURNAL / source.split / f"{source.stem}.json", records)
    done.records += records
