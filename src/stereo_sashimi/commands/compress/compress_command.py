"""`compress.py`: WAV, AIFF and FLAC files <-> .ssc files, without loss. The codec itself is in stereo_sashimi.codec."""

import shutil
import sys
import tempfile
import time
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import IO, TextIO

from omegaconf import DictConfig, ListConfig

from stereo_sashimi.audio.io import whole_file
from stereo_sashimi.codec import pcm_files as files
from stereo_sashimi.codec.batch_coder import BatchCoder
from stereo_sashimi.codec.coders import check_model
from stereo_sashimi.codec.coding import decode_blocks, encode_to
from stereo_sashimi.codec.container import Reader, most_frames
from stereo_sashimi.commands.cli import keys
from stereo_sashimi.commands.compress.jobs import ACTIONS, PIPE, Job, jobs_of
from stereo_sashimi.commands.shared.checks import check_keys
from stereo_sashimi.commands.shared.loading import load_model
from stereo_sashimi.commands.shared.progress import Meter
from stereo_sashimi.commands.shared.runs import relative
from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.pretrained import PROFILES
from stereo_sashimi.schema import check_choice, check_type
from stereo_sashimi.signals import Stopped, listening


def run(cfg: DictConfig) -> None:
    """Do what `cfg` says. Signals that end it raise SystemExit; files that are written by then are complete.

    One file that cannot be done raises; of several the others are done, and SystemExit says that some were not.
    """
    check_keys(cfg, keys("compress"))
    for key in ("verify", "flac", "overwrite"):
        check_type(cfg[key], bool, key)
    if cfg.action not in (None, *ACTIONS):
        raise ValueError(f"action must be one of {', '.join(ACTIONS)}, or null; got {cfg.action!r}.")
    check_choice(cfg.profile, "profile", PROFILES)
    inputs = cfg.input if isinstance(cfg.input, ListConfig) else [cfg.input]
    output = None if cfg.output is None else Path(str(cfg.output))
    jobs, skipped = jobs_of(cfg.action, [Path(str(path)) for path in inputs], output, cfg.overwrite)
    work, failed = _Work(cfg), 0
    try:
        with listening():
            for i, job in enumerate(jobs):
                count = f"[{i + 1}/{len(jobs)}] " if len(jobs) > 1 else ""
                try:
                    work.do(job, count)
                except (ValueError, OSError) as error:
                    if len(jobs) == 1:
                        raise
                    failed += 1
                    print(f"{count}error: {error}", file=sys.stderr, flush=True)
    except Stopped as stopped:
        done = f"{work.done} of {len(jobs)} files are complete" if work.done else "nothing was written"
        stopped.leave(f"Interrupted; {done}.")
    if skipped or len(jobs) > 1:
        work.say(_total(work, failed, skipped))
    if failed:
        raise SystemExit(1)


class _Work:
    """What is done file by file.

    Attributes:
        done, before, after: Files, and bytes of those that were read and written.
    """

    def __init__(self, cfg: DictConfig) -> None:
        self._cfg = cfg
        self._said: TextIO = sys.stdout
        self.done = self.before = self.after = 0

    def say(self, text: str) -> None:
        """For people; to standard error where standard output takes a file."""
        print(text, file=self._said, flush=True)

    def do(self, job: Job, count: str) -> None:
        """One file."""
        if job.output == PIPE:
            self._said = sys.stderr
        with ExitStack() as stack:
            source = _spooled(stack) if job.source == PIPE else job.source
            {"encode": self._encode, "decode": self._decode, "verify": self._decode, "info": self._info}[job.action](
                source, job, count
            )
        self.done += 1

    def _encode(self, source: Path, job: Job, count: str) -> None:
        cfg, output = self._cfg, job.output
        assert output is not None
        name = "" if cfg.checkpoint is not None else PROFILES[cfg.profile]
        model = self._load(name)
        with files.open_pcm(source) as pcm, ExitStack() as stack:
            # Before the work: FLAC does not hold every recording.
            plain = files.flac_bytes(pcm) if cfg.flac and pcm.frames else 0
            started = time.perf_counter()
            meter = stack.enter_context(Meter(f"{count}encoding", pcm.sample_rate, pcm.frames))
            file = _output_file(stack, output)
            given = {key: cfg[key] for key in ("segment_frames", "lanes", "verify")}
            if name == PROFILES["best"] and given["segment_frames"] is None:
                # As few cold starts as there can be, at the price of idle threads.
                given["segment_frames"] = most_frames(pcm.n_channels)
            size = encode_to(file, model, pcm, name=name, on_frames=meter.add, **given)
            _hand_over(file, output)
        seconds, original = time.perf_counter() - started, source.stat().st_size
        self.before, self.after = self.before + original, self.after + size
        verified = ", verified" if cfg.verify else ""
        self.say(
            f"{count}{_shown(output)}  {size:,} bytes  {size / max(1, original):.1%} of {job.source.name}{verified}"
        )
        samples = pcm.frames * pcm.n_channels
        if samples:
            flac = f"  {size / plain:.1%} of FLAC" if plain else ""
            self.say(f"{8 * size / samples:.3f} bits/sample{flac}  {pcm.frames / seconds:,.0f} frames/s")

    def _decode(self, source: Path, job: Job, count: str) -> None:
        with open(source, "rb") as coded, ExitStack() as stack:
            reader = Reader(coded, str(job.source))
            header, output = reader.header, job.output
            model = self._load(header.model)
            meter = stack.enter_context(Meter(f"{count}decoding", header.sample_rate, header.frames))
            started = time.perf_counter()
            blocks = decode_blocks(model, reader, on_frames=meter.add)
            if output is None:
                for _ in blocks:
                    pass
                what = f"{_shown(job.source)} is whole: {header.frames:,} frames decode to what was coded"
            else:
                file = _output_file(stack, output)
                name = Path(f"-{files.suffix_of_kind(header.container)}") if output == PIPE else output
                files.write_to(file, name, blocks, header, reader.envelope, str(job.source))
                _hand_over(file, output)
                what = f"{_shown(output)}  {header.frames:,} frames"
            rate = header.frames / (time.perf_counter() - started)
        written = header.pcm_bytes if output in (None, PIPE) else output.stat().st_size
        self.before, self.after = self.before + reader.size, self.after + written
        self.say(f"{count}{what}  {rate:,.0f} frames/s")

    def _info(self, source: Path, job: Job, count: str) -> None:
        with open(source, "rb") as coded:
            reader = Reader(coded, str(job.source))
        header, size = reader.header, reader.size
        names, seconds = {1: "mono", 2: "stereo"}, header.frames / header.sample_rate
        channels = names.get(header.n_channels, f"{header.n_channels} channels")
        self.say(f"{job.source}  {size:,} bytes, coded by stereo-sashimi {header.package}")
        self.say(f"audio     {channels}  {header.sample_rate} Hz  {header.bits} bit  {header.frames:,} frames")
        kept = {"wav": "a WAV file", "aiff": "an AIFF file", "flac": "a FLAC file"}.get(header.container)
        self.say(f"          {seconds:.2f} s  {'samples only' if kept is None else f'all else of {kept} is kept'}")
        self.say(f"decoded   {header.pcm_bytes:,} bytes of samples, {header.pcm_bytes / size:,.2f} times this file")
        modes = ", ".join(f"{count} {mode}" for mode, count in reader.modes.items())
        self.say(f"segments  {header.segment_frames:,} frames each  {header.n_segments} segments ({modes})")
        self.say(f"model     {header.model or 'one of your own'}\nweights   {header.weights}")
        self.say(f"probe     {header.probe}\npcm       {header.pcm}")

    def _load(self, name: str) -> LanguageModel:
        given = name if self._cfg.checkpoint is None else self._cfg.checkpoint
        if not given:
            raise ValueError(
                "This file was coded with a model of somebody's own, not with one of the profiles. Give it: "
                "checkpoint=<run, .ckpt or exported model>."
            )
        return _loaded(str(given), self._cfg.paths.runs, self._said)


@lru_cache(maxsize=4)
def _loaded(given: str, runs: str, said: TextIO) -> LanguageModel:
    model = load_model(given, runs)[1]
    check_model(model)
    if (waiting := BatchCoder.preparation(model)) is not None:
        print(f"codec: {waiting}", file=said, flush=True)
    return model


def _spooled(stack: ExitStack) -> Path:
    """Standard input as a file, which goes away with `stack`."""
    file = _temporary(stack)
    shutil.copyfileobj(sys.stdin.buffer, file)
    file.flush()
    return Path(file.name)


def _temporary(stack: ExitStack) -> IO[bytes]:
    return stack.enter_context(tempfile.NamedTemporaryFile(prefix="stereo-sashimi-"))


def _output_file(stack: ExitStack, output: Path) -> IO[bytes]:
    """A file that can seek and appears, under its name or on standard output, when it is complete."""
    if output == PIPE:
        return _temporary(stack)
    output.parent.mkdir(parents=True, exist_ok=True)
    return stack.enter_context(whole_file(output))


def _hand_over(file: IO[bytes], output: Path) -> None:
    """What was written for standard output goes there, all at once."""
    if output == PIPE:
        file.flush()
        with open(file.name, "rb") as whole:
            shutil.copyfileobj(whole, sys.stdout.buffer)
        sys.stdout.buffer.flush()


def _shown(path: Path) -> str:
    return "-" if path == PIPE else relative(path)


def _total(work: _Work, failed: int, skipped: int) -> str:
    ratio = f"  {work.before:,} -> {work.after:,} bytes, {work.after / work.before:.1%}" if work.before else ""
    others = (f", {skipped} done before" if skipped else "") + (f", {failed} failed" if failed else "")
    return f"{work.done} files{others}{ratio}"
