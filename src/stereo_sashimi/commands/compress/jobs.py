"""Which files a call of `compress.py` reads and writes: all of it settled, and refused, before any work begins."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from stereo_sashimi.codec.container import CodecError, Reader
from stereo_sashimi.codec.pcm_files import SUFFIXES, suffix_of_kind
from stereo_sashimi.commands.shared.checks import check_writable

ACTIONS = ("encode", "decode", "verify", "info")
SUFFIX = ".ssc"
# Standard input or output.
PIPE = Path("-")


class Job(NamedTuple):
    """One file: what is done, where it is read, and the file that is written, None where none is."""

    action: str
    source: Path
    output: Path | None


def jobs_of(action: str | None, inputs: Sequence[Path], output: Path | None, overwrite: bool) -> tuple[list[Job], int]:
    """The jobs, and how many more are done already: those of several whose output is there.

    - `action`: None for what the suffix of a file says.
    - `inputs`: files, folders that are searched, or PIPE. `output`: a file for one file, else a folder, which keeps the
      tree of a folder; PIPE; None for beside each input.

    Raises ValueError for what cannot be.
    """
    found = [(path, root) for given in inputs for path, root in _files(given, action)]
    several = len(found) != 1 or any(os.path.isdir(given) for given in inputs)
    if several and PIPE in (*inputs, output):
        raise ValueError("Standard input and output (-) take one file. Give one input, or a folder as output.")
    if several and output is not None and output.is_file():
        raise ValueError(f"output={output} is a file, and there are {len(found)} inputs. Give a folder.")
    into = output if several or (output is not None and output.is_dir()) else None
    jobs = [_job(action, path, root, output if into is None else None, into) for path, root in found]
    _check_outputs(jobs, several)
    waiting = [job for job in jobs if not (several and not overwrite and job.output and job.output.exists())]
    for job in waiting:
        if job.output not in (None, PIPE) and job.output.exists() and not overwrite:
            raise ValueError(f"{job.output} is there already. Give another output=<file>, or overwrite=true.")
    return waiting, len(jobs) - len(waiting)


def _files(given: Path, action: str | None) -> Iterable[tuple[Path, Path | None]]:
    """The files that are meant, and the folder that was given."""
    if given == PIPE:
        return [(given, None)]
    # Those of Path raise where a folder may not be looked into.
    if os.path.isdir(given):
        coded = sorted(path for path in given.rglob("*") if path.suffix.lower() == SUFFIX and path.is_file())
        audio = sorted(path for path in given.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
        files = audio if action == "encode" or (action is None and audio) else coded
        if not files:
            kinds = f"no {SUFFIX} file" if action not in (None, "encode") else f"none of {', '.join(SUFFIXES)}"
            raise ValueError(f"{given} holds {kinds}. Give a folder that does, or files.")
        return [(path, given) for path in files]
    if not os.path.isfile(given):
        raise ValueError(f"There is no file {given}. Give one: input=<file>.")
    return [(given, None)]


def _job(action: str | None, source: Path, root: Path | None, output: Path | None, into: Path | None) -> Job:
    if action is None:
        action = "decode" if source.suffix.lower() == SUFFIX else "encode"
    if action in ("verify", "info"):
        return Job(action, source, None)
    if output is None:
        if source == PIPE:
            return Job(action, source, PIPE)
        suffix = SUFFIX if action == "encode" else suffix_of(source)
        place = source if into is None else into / (source.name if root is None else source.relative_to(root))
        output = place.with_suffix(suffix)
    allowed = (SUFFIX,) if action == "encode" else tuple(SUFFIXES)
    if output != PIPE and output.suffix.lower() not in allowed:
        raise ValueError(f"output must end in {', '.join(allowed)} for action={action}, or be a folder; got {output}.")
    if output != PIPE and into is None and not output.parent.is_dir():
        raise ValueError(f"output={output}: there is no folder {output.parent}. Make it, or give another one.")
    return Job(action, source, output)


def suffix_of(coded: Path) -> str:
    """That of the file a coded one becomes; a damaged one is refused when its turn comes."""
    try:
        with open(coded, "rb") as file:
            return suffix_of_kind(Reader(file, str(coded)).header.container)
    except CodecError:
        if coded.suffix.lower() != SUFFIX:
            raise
        return ".wav"


def _check_outputs(jobs: Sequence[Job], several: bool) -> None:
    twice = [path for path, count in Counter(job.output for job in jobs if job.output).items() if count > 1]
    if twice:
        sources = ", ".join(str(job.source) for job in jobs if job.output == twice[0])
        raise ValueError(f"{sources} would all become {twice[0]}. Code them into different folders, or rename some.")
    for job in jobs:
        if job.output in (None, PIPE):
            continue
        if job.output.resolve() == job.source.resolve():
            raise ValueError(f"output and input are the same file, {job.source}. Give another output=<file>.")
        if not several:
            check_writable(job.output.parent, "output")
