"""Scores the tracks of an evaluation one by one, and keeps what is done on disk, so that an interrupted one goes on.

`tracks/<name>.json` holds the result of a finished track with a fingerprint of everything it depends on;
`<name>.partial` beside it the state of a track that was interrupted.
"""

import hashlib
import io
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from stereo_sashimi.audio.io import write_whole
from stereo_sashimi.commands.evaluate.recordings import Track
from stereo_sashimi.generation.scoring import Scoring, check_structure
from stereo_sashimi.metrics.lossless import coded_bits
from stereo_sashimi.metrics.totals import TrackResult
from stereo_sashimi.models.archive import read_archive
from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.models.locate import CheckpointError
from stereo_sashimi.models.weights import fingerprint
from stereo_sashimi.signals import Stopped

# Seconds between two saves of a half-scored track.
SAVE_SECONDS = 60.0
INDEPENDENT = "independent"


class TrackScorer:
    """Scores tracks under a model, and under one without coupling of the channels if there is one.

    Args:
        contexts: segment length in frames by name, None for whole tracks; the main context first.
        baselines: whether lossless coders run on the same samples.
        folder: for the results; must exist.
    """

    def __init__(
        self,
        model: LanguageModel,
        independent: LanguageModel | None,
        contexts: dict[str, int | None],
        baselines: bool,
        folder: Path,
    ) -> None:
        self.passes = [(name, model, frames) for name, frames in contexts.items()]
        if independent is not None:
            self.passes.append((INDEPENDENT, independent, next(iter(contexts.values()))))
        self.model_sha256, self._spec = _sha256(model), model.spec
        self._contexts, self._baselines, self._folder = list(contexts), baselines, folder
        self._independent_sha256 = None if independent is None else _sha256(independent)

    def finished(self, track: Track) -> TrackResult | None:
        """The stored result of a track, if its fingerprint is the one it would get now.

        Raises ValueError, naming the file, for one that is damaged.
        """
        path = self._path(track)
        if not path.exists():
            return None
        with _reading(path):
            content = json.loads(path.read_bytes())
            if content["fingerprint"] != self._fingerprint(track):
                return None
            result, like = content["result"], asdict(self._like(track))
            if self._baselines:
                # Which programs there were is not known.
                like["lossless"] = dict.fromkeys(result["lossless"], 1)
            check_structure(result, like, "result")
            facts = ("file", "sha256", "frames", "sample_rate", "n_channels")
            if {name: result[name] for name in facts} != {name: like[name] for name in facts}:
                raise ValueError("result is that of another recording")
            return TrackResult(**result)

    def forget(self, track: Track) -> None:
        """Delete what is stored of a track."""
        for path in (self._path(track), self._partial(track)):
            path.unlink(missing_ok=True)

    def score(self, track: Track, progress: Callable[[int], None]) -> TrackResult:
        """Score a track, from where an interruption left it, and store its result.

        `progress` gets the frames of each piece. If it or a signal raises Stopped, the state after the last piece is
        saved. Raises ValueError, naming the file, if its samples have changed or the model computes NaN or infinity.
        """
        spec = self._spec
        pcm = track.read(spec)
        done, current = self._resume(track)
        for name, model, segment_frames in self.passes:
            if name in done:
                progress(len(pcm))
                continue
            scoring = Scoring(model, pcm, segment_frames)
            if current is not None and current["name"] == name:
                with _reading(self._partial(track)):
                    scoring.restore(current["state"])
                progress(scoring.frames)
            try:
                done[name] = self._score_pass(track, scoring, name, done, progress)
            except ValueError as error:
                raise ValueError(f"{track.path}: {error}") from error
        result = replace(
            self._like(track),
            contexts={name: {"channel_nats": done[name]["channel_nats"]} for name in self._contexts},
            independent={"channel_nats": done[INDEPENDENT]["channel_nats"]} if INDEPENDENT in done else None,
            bits_each_second=done[self._contexts[0]]["second_bits"],
            lossless=coded_bits(pcm, spec.sample_rate, spec.bits) if self._baselines else {},
        )
        content = {"fingerprint": self._fingerprint(track), "result": asdict(result)}
        write_whole(self._path(track), json.dumps(content, indent=1, allow_nan=False).encode())
        self._partial(track).unlink(missing_ok=True)
        return result

    def _score_pass(
        self, track: Track, scoring: Scoring, name: str, done: dict[str, Any], progress: Callable[[int], None]
    ) -> dict[str, Any]:
        state, saved = scoring.state(), time.monotonic()

        def save() -> None:
            current = {"name": name, "state": state}
            buffer = io.BytesIO()
            torch.save({"fingerprint": self._fingerprint(track), "done": done, "current": current}, buffer)
            write_whole(self._partial(track), buffer.getbuffer())

        try:
            for frames in scoring.pieces():
                state = scoring.state()
                if time.monotonic() - saved >= SAVE_SECONDS:
                    save()
                    saved = time.monotonic()
                progress(frames)
        except (Stopped, KeyboardInterrupt):
            save()
            raise
        return {"channel_nats": list(scoring.result().channel_nats), "second_bits": scoring.second_bits()}

    def _resume(self, track: Track) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """The finished passes of an interrupted track, and the state of the next one."""
        path = self._partial(track)
        if not path.exists():
            return {}, None
        with _reading(path):
            try:
                content = read_archive(path, "Delete it.")
            except CheckpointError as error:
                raise ValueError("it cannot be read") from error
            if content["fingerprint"] != self._fingerprint(track):
                return {}, None
            done, current, names = content["done"], content["current"], [name for name, _, _ in self.passes]
            before = names[: names.index(current["name"])]
            empty = self._like(track)
            scored = {"channel_nats": [0.0] * self._spec.n_channels, "second_bits": empty.bits_each_second}
            check_structure(done, dict.fromkeys(before, scored), "done")
            return done, current

    def _like(self, track: Track) -> TrackResult:
        """A result that costs nothing, of the structure that a real one has."""
        spec, nats = self._spec, [0.0] * self._spec.n_channels
        return TrackResult(
            file=track.file,
            sha256=track.sha256,
            frames=track.frames,
            sample_rate=spec.sample_rate,
            n_channels=spec.n_channels,
            contexts={name: {"channel_nats": nats} for name in self._contexts},
            independent=None if self._independent_sha256 is None else {"channel_nats": nats},
            bits_each_second=[nats] * -(-track.frames // spec.sample_rate),
            lossless={},
        )

    def _fingerprint(self, track: Track) -> str:
        """Of everything that a result depends on: samples, weights and settings."""
        settings = [track.file, track.sha256, self.model_sha256, self._independent_sha256, self._contexts]
        return hashlib.sha256(json.dumps([*settings, self._baselines]).encode()).hexdigest()

    def _path(self, track: Track) -> Path:
        # The digest tells apart what the readable part does not: a/b.wav and a_b.wav.
        readable = re.sub(r"[^A-Za-z0-9.-]+", "_", track.file)[-60:].lstrip(".")
        return self._folder / f"{readable}-{hashlib.sha256(track.file.encode()).hexdigest()[:32]}.json"

    def _partial(self, track: Track) -> Path:
        return self._path(track).with_suffix(".partial")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Any way in which a stored file can be damaged, as a ValueError with its name and what to do."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        why = str(error) if isinstance(error, ValueError) else "its fields are not those of a stored track"
        why = "it is nested too deep" if isinstance(error, RecursionError) else getattr(error, "strerror", None) or why
        raise ValueError(
            f"{path} is damaged: {why}. Delete it, or set overwrite=true: then its track is scored again."
        ) from error


def _sha256(model: LanguageModel) -> str:
    """Of a model's description and weights."""
    description = json.dumps(model.config.to_plain(), sort_keys=True)
    return hashlib.sha256(f"{description} {fingerprint(model)}".encode()).hexdigest()
