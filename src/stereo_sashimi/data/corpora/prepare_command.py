"""The command line of `preprocess/*.py`: options, progress bar, messages, exit codes. The work is in `musdb.py`."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from stereo_sashimi.data.corpora import sources as src
from stereo_sashimi.data.corpora.musdb import prepare_musdb

_HOW_TO_GET = """no MUSDB folder was given: use --root FOLDER or set MUSDB_PATH.
  Get MUSDB18-HQ (WAV, about 22.7 GB) from https://zenodo.org/records/3338373, for educational and non-commercial use;
  the licence of each track is stated there. FOLDER is the one that holds train/ and test/.
  Without a download: --sample makes a 6-second data set from the stem file in the stempeg package."""


def run(prepare: Callable[..., dict[str, int]], parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> int:
    """The command of a data set that one call makes; gives the exit code.

    `prepare` takes the options of `parser`, `out` among them, and returns the number of files of each split.
    """
    options = parser.parse_args(argv)
    try:
        counts = prepare(**vars(options))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{options.out}: " + ", ".join(f"{count} {split}" for split, count in counts.items()), file=sys.stderr)
    return 0


def main(argv: Sequence[str] | None = None, *, split_channels: bool = False) -> int:
    """Run the command; gives the exit code: 0 done, 1 an error, 2 nothing to read from was named, 130 interrupted."""
    name = "musdb18mono" if split_channels else "musdb18stereo"
    parser = argparse.ArgumentParser(
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
    console = Console(stderr=True)
    columns = (TextColumn(name), BarColumn(), MofNCompleteColumn(), TextColumn("tracks"), TimeRemainingColumn())
    try:
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
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
