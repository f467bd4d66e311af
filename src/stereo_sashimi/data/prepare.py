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
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int16

from stereo_sashimi.audio.io import AudioError, write_pcm, write_whole
from stereo_sashimi.data import sources as src
from stereo_sashimi.data.split import SPLITS, find_audio

SCHEMA_VERSION = 1
_JOURNAL = ".journal"
_HOW_TO_GET = """no MUSDB folder was given: use --root FOLDER or set MUSDB_PATH.
  Get MUSDB18-HQ (WAV, about 22.7 GB) from https://zenodo.org/records/3338373, for educational and non-commercial use;
  the licence of each track is stated there. FOLDER is the one that holds train/ and test/.
  Without a download: --sample makes a 6-second data set from the stem file in the stempeg package."""

Record = dict[str, Any]
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
    before = _earlier_records(out, settings)
    _make_folders(out)
    _write_json(out / _JOURNAL / "settings.json", {"settings": settings})
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
    _write_json(out / "manifest.json", manifest)
    shutil.rmtree(out / _JOURNAL)


def _run(work: list[_Job], jobs: int) -> Generator[Prepared, None, None]:
    if jobs == 1 or len(work) < 2:
        yield from map(_prepare_track, work)
        return
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    with ProcessPoolExecutor(min(jobs, len(work)), context, _set_stop, (stop,)) as pool:
        try:
            with _interrupts_ignored():
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
        if record["source_bytes"] == size and record["path"].startswith(start_of_path) and _is_intact(job.out, record)
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
                **_measure(pcm[:, part]),
                "clipped": sum(clipped[part]),
                **_fingerprint(job.out / path),
            }
            records.append(record)
            done.written += 1
    _write_json(job.out / _JOURNAL / f"{start_of_path}.json", {"files": records})
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


def _measure(pcm: Int16[np.ndarray, "frames channels"]) -> Record:
    """Channels, peak (0 to 1) and side energy over mid energy (None where mid is silent), from exact integers.

    Mid is the mean of the channels and side what each differs from it: of left and right, (L - R)^2 / (L + R)^2.
    """
    wide = pcm.astype(np.int64)
    n_channels = wide.shape[1]
    total = wide.sum(axis=1, keepdims=True)
    mid, side = int((total**2).sum()), int(((n_channels * wide - total) ** 2).sum())
    ratio = side / (n_channels * mid) if mid else None
    return {"channels": n_channels, "peak": int(np.abs(wide).max(initial=0)) / 32768, "side_mid_ratio": ratio}


def _fingerprint(file: Path) -> Record:
    with open(file, "rb") as opened:
        return {"bytes": os.fstat(opened.fileno()).st_size, "sha256": hashlib.file_digest(opened, "sha256").hexdigest()}


def _is_intact(out: Path, record: Record) -> bool:
    file = out / record["path"]
    # The size first: it costs nothing.
    if not file.is_file() or file.stat().st_size != record["bytes"]:
        return False
    return _fingerprint(file)["sha256"] == record["sha256"]


def _earlier_records(out: Path, settings: Record) -> dict[tuple[str, str, str], list[Record]]:
    """Records of the manifest and then of the journal in `out`, by split, source and target."""
    found: dict[tuple[str, str, str], dict[str, Record]] = {}
    for file in [out / "manifest.json", *sorted((out / _JOURNAL).rglob("*.json"))]:
        if not file.is_file():
            continue
        try:
            noted = json.loads(file.read_text(encoding="utf-8"))
            for record in noted.get("files", []):
                key = (record["split"], record["source"], record["target"])
                found.setdefault(key, {})[record["path"]] = record
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise src.SourceError(f"{file}: not written by this command ({error!r}); delete {out}.") from None
        for name, value in noted.get("settings", {}).items():
            if value != settings.get(name):
                raise src.SourceError(
                    f"{out}: was made with {name}={value}, this run has {settings.get(name)}. Choose another --out, or "
                    "delete that folder."
                )
    return {key: list(records.values()) for key, records in found.items()}


def _make_folders(out: Path) -> None:
    try:
        for split in SPLITS:
            (out / split).mkdir(parents=True, exist_ok=True)
            (out / _JOURNAL / split).mkdir(parents=True, exist_ok=True)
            # What a killed process left.
            for leftover in (out / split).glob(".*.part"):
                leftover.unlink()
    except OSError as error:
        raise AudioError(f"{error.filename or out}: cannot write there ({error.strerror}); see --out.") from error


def _write_json(path: Path, content: Record) -> None:
    write_whole(path, (json.dumps(content, indent=1) + "\n").encode())


def _set_stop(stop: Any) -> None:
    global _stop
    _stop = stop


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Processes started here inherit it, so that after Ctrl-C only the parent speaks, and stops them by their event."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def main(argv: Sequence[str] | None = None, *, split_channels: bool = False) -> int:
    """Run the command; gives the exit code: 0 done, 1 an error, 2 nothing to read from was named, 130 interrupted."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    name = "musdb18mono" if split_channels else "musdb18stereo"
    parser = argparse.ArgumentParser(
        prog=f"preprocess/{name}_wav.py",
        description=f"Prepare MUSDB18-HQ or MUSDB18 as {'mono' if split_channels else 'stereo'} 16-bit WAV files.",
    )
    parser.add_argument("--root", type=Path, help="MUSDB folder, or one this command prepared (default: $MUSDB_PATH)")
    parser.add_argument("--out", type=Path, help=f"folder to write (default: data/{name})")
    parser.add_argument(
        "--targets", help=f"comma-separated, of {','.join(src.TARGETS)} (default: all; sample: mixture)"
    )
    parser.add_argument("--clip-seconds", type=float, help="cut into clips of this length (default: whole tracks)")
    parser.add_argument("--pad", action="store_true", help="zero-pad the last clip instead of dropping it")
    parser.add_argument(
        "--jobs", type=int, default=min(4, os.cpu_count() or 1), help="processes (default: %(default)s)"
    )
    parser.add_argument("--sample", action="store_true", help="use the 6 seconds in the stempeg package; no download")
    options = parser.parse_args(argv)
    root = options.root or (Path(os.environ["MUSDB_PATH"]) if os.environ.get("MUSDB_PATH") else None)
    if root is None and not options.sample:
        print(_HOW_TO_GET, file=sys.stderr)
        return 2
    if options.sample and options.root:
        print("--sample and --root exclude each other.", file=sys.stderr)
        return 2
    # The sample is done in a second; starting processes takes longer.
    out = options.out or Path("data", ("sample-mono" if split_channels else "sample") if options.sample else name)
    columns = (TextColumn(name), BarColumn(), MofNCompleteColumn(), TextColumn("tracks"), TimeRemainingColumn())
    try:
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(name, total=None)
            result = prepare_musdb(
                None if options.sample else root,
                out,
                targets=options.targets.split(",") if options.targets is not None else None,
                clip_seconds=options.clip_seconds,
                pad=options.pad,
                jobs=1 if options.sample else options.jobs,
                split_channels=split_channels,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
    except KeyboardInterrupt:
        print(f"interrupted; {out} has only complete files, and the same command goes on from there.", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for line in [*result.notes, *(f"error: {failure}" for failure in result.failures)]:
        print(line, file=sys.stderr)
    if result.failures:
        print(f"{out}: {result.written + result.kept} files are done; the same command goes on.", file=sys.stderr)
        return 1
    print(f"{out}: {result.written} files written, {result.kept} kept; see {out / 'manifest.json'}", file=sys.stderr)
    return 0
