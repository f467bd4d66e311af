"""Scoring one recording of an evaluation, in this process or another one, with all that survives an interruption.

`tracks/<name>.json` holds what a finished recording costs, and a fingerprint of all that this depends on; beside it
lies `<name>.partial` while one is half done.
"""

import hashlib
import io
import json
import re
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stereo_sashimi.audio.files import read
from stereo_sashimi.audio.io import write_whole
from stereo_sashimi.commands.evaluate.evaluate_options import Track
from stereo_sashimi.commands.shared.signals import Stopped
from stereo_sashimi.generation.scoring import Scoring
from stereo_sashimi.metrics.lossless import coded_bits
from stereo_sashimi.metrics.totals import TrackResult
from stereo_sashimi.models.checkpoint import load
from stereo_sashimi.models.language_model import LanguageModel

# Between two looks at a half scored recording that go to the disk.
SAVE_SECONDS = 60.0
INDEPENDENT = "independent"


@dataclass(frozen=True)
class Job:
    """What an evaluation does with every recording; plain, as it travels to other processes.

    - `checkpoint`, `independent`: files of the models. `sha256`, `independent_sha256`: of what these hold.
    - `contexts`: frames of a segment by name, None for all; the main one first. `baselines`: whether coders run.
    - `folder`: of the results, which exists.
    """

    checkpoint: Path
    independent: Path | None
    sha256: str
    independent_sha256: str | None
    backend: str
    device: str
    contexts: dict[str, int | None]
    baselines: bool
    folder: Path

    def passes(self) -> list[tuple[str, Path, int | None]]:
        """Name, model and frames of a segment of everything that is scored of a recording."""
        found = [(name, self.checkpoint, frames) for name, frames in self.contexts.items()]
        if self.independent is not None:
            found.append((INDEPENDENT, self.independent, next(iter(self.contexts.values()))))
        return found

    def fingerprint(self, track: Track) -> str:
        """Of all that the result depends on: samples, weights and settings."""
        settings = [track.file, track.sha256, self.sha256, self.independent_sha256, list(self.contexts), self.baselines]
        return hashlib.sha256(json.dumps(settings).encode()).hexdigest()

    def path(self, track: Track) -> Path:
        """Where the result of a recording is."""
        # The digest keeps apart what the readable part does not: a/b.wav and a_b.wav.
        readable = re.sub(r"[^A-Za-z0-9.-]+", "_", track.file)[-60:].lstrip(".")
        return self.folder / f"{readable}-{hashlib.sha256(track.file.encode()).hexdigest()[:32]}.json"


def finished(job: Job, track: Track) -> TrackResult | None:
    """The result of a recording, if there is one with the fingerprint that it would get now."""
    try:
        content = json.loads(job.path(track).read_bytes())
        return TrackResult(**content["result"]) if content["fingerprint"] == job.fingerprint(track) else None
    except (OSError, ValueError, KeyError, TypeError):
        # What cannot be read is made again.
        return None


def forget(job: Job, track: Track) -> None:
    """Take away what there is of a recording."""
    for path in (job.path(track), _partial(job, track)):
        path.unlink(missing_ok=True)


def evaluate_track(job: Job, track: Track, watch: Callable[[int], None]) -> TrackResult:
    """Score a recording, from where an interruption left it, and write its result.

    - `watch`: called with the number of frames of each piece; where it raises Stopped, or a signal does, the state
      behind the last piece is saved.

    Raises ValueError naming the file, where its samples have changed or the model computes no number.
    """
    model_of = _model(job.checkpoint, job.backend, job.device)
    spec, partial = model_of.spec, _partial(job, track)
    pcm = read(track.path, spec, track.frames)
    if hashlib.sha256(pcm.data).hexdigest() != track.sha256:
        raise ValueError(f"{track.path} has changed since the evaluation began. Run the command again.")
    done, current = _saved(job, track)
    for name, checkpoint, segment_frames in job.passes():
        if name not in done:
            model = _model(checkpoint, job.backend, job.device)
            scoring = Scoring(model, pcm, segment_frames)
            if current is not None and current["name"] == name:
                scoring.restore(current["state"])
                watch(scoring.frames)
            try:
                done[name] = _score(job, track, scoring, (name, done), watch)
            except ValueError as error:
                raise ValueError(f"{track.path}: {error}") from error
        else:
            watch(len(pcm))
    result = _result(job, track, done, pcm, model_of)
    content = {"fingerprint": job.fingerprint(track), "result": asdict(result)}
    write_whole(job.path(track), json.dumps(content, indent=1, allow_nan=False).encode())
    partial.unlink(missing_ok=True)
    return result


def _score(
    job: Job, track: Track, scoring: Scoring, at: tuple[str, dict[str, Any]], watch: Callable[[int], None]
) -> dict[str, Any]:
    """One pass over a recording; `at` are its name and what was done before."""
    name, done = at
    state, saved = scoring.state(), time.monotonic()
    try:
        for frames in scoring.pieces():
            state = scoring.state()
            if time.monotonic() - saved >= SAVE_SECONDS:
                _save(job, track, done, name, state)
                saved = time.monotonic()
            watch(frames)
    except (Stopped, KeyboardInterrupt):
        _save(job, track, done, name, state)
        raise
    return {"channel_nats": list(scoring.result().channel_nats), "second_bits": scoring.second_bits()}


def _result(job: Job, track: Track, done: dict[str, Any], pcm: np.ndarray, model: LanguageModel) -> TrackResult:
    spec, main = model.spec, next(iter(job.contexts))
    return TrackResult(
        file=track.file,
        sha256=track.sha256,
        frames=len(pcm),
        sample_rate=spec.sample_rate,
        n_channels=spec.n_channels,
        contexts={name: {"channel_nats": done[name]["channel_nats"]} for name in job.contexts},
        independent={"channel_nats": done[INDEPENDENT]["channel_nats"]} if INDEPENDENT in done else None,
        bits_each_second=done[main]["second_bits"],
        lossless=coded_bits(pcm, spec.sample_rate, spec.bits) if job.baselines else {},
    )


def _partial(job: Job, track: Track) -> Path:
    return job.path(track).with_suffix(".partial")


def _save(job: Job, track: Track, done: dict[str, Any], name: str, state: dict[str, Any]) -> None:
    content = {"fingerprint": job.fingerprint(track), "done": done, "current": {"name": name, "state": state}}
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_whole(_partial(job, track), buffer.getbuffer())


def _saved(job: Job, track: Track) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The passes that are done, and where the one after them stands."""
    path = _partial(job, track)
    if not path.is_file():
        return {}, None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        same = content["fingerprint"] == job.fingerprint(track)
    except Exception as error:  # A damaged archive fails in many ways; what it held is scored again.
        print(f"{path} is damaged ({error}); {track.file} is scored from its start", file=sys.stderr, flush=True)
        same = False
    return (content["done"], content["current"]) if same else ({}, None)


@lru_cache(maxsize=2)
def _model(path: Path, backend: str, device: str) -> LanguageModel:
    """Loaded once in each process."""
    return load(path, backend).to(device)
