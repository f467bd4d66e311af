"""The keys of `generate.py` as `GenerateOptions`, and with a model `SamplingJob`, which also writes the JSON files."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig

from stereo_sashimi.audio import io
from stereo_sashimi.audio.files import read
from stereo_sashimi.audio.io import write_whole
from stereo_sashimi.audio.resample import resampled_length
from stereo_sashimi.audio.writers import most_frames
from stereo_sashimi.commands.shared.loading import device_of
from stereo_sashimi.commands.shared.progress import speed
from stereo_sashimi.commands.shared.runs import relative
from stereo_sashimi.distributions.sampler import Sampler
from stereo_sashimi.generation.results import Block, SamplingTotals, TrackScore
from stereo_sashimi.generation.sampling import blocks, frames_in
from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.schema import check_choice, check_count, check_type
from stereo_sashimi.spec import AudioSpec


@dataclass(frozen=True)
class GenerateOptions:
    """What is asked for, checked as far as that can be done without the model: configs/generate.yaml says what it is.

    There is one of `seeds` a sample; `seconds` are None until Ctrl-C.
    """

    device: torch.device
    sampler: Sampler
    seeds: tuple[int, ...] = (0,)
    seconds: float | None = 1.0
    prompt: str | None = None
    prompt_seconds: float | None = None
    prompt_resample: bool = False
    out: str | None = None
    name: str | None = None
    format: str = "wav"
    stream: bool = False
    stdout: bool = False
    overwrite: bool = False

    @classmethod
    def from_config(cls, cfg: DictConfig) -> "GenerateOptions":
        """Check the values that are wrong whatever the model is. Raises ValueError."""
        for key in ("stream", "stdout", "prompt_resample", "overwrite"):
            check_type(cfg[key], bool, key)
        check_choice(cfg.format, "format", io.FORMATS)
        if cfg.stream and cfg.format != "wav":
            raise ValueError(
                f"stream=true writes WAV files; got format={cfg.format}. Use format=wav, or stream=false, which "
                "writes a FLAC file when everything is drawn."
            )
        n_samples, seed = check_count(cfg.n_samples, "n_samples"), check_count(cfg.seed, "seed", 0)
        if seed + n_samples > 2**63:
            raise ValueError(f"seed + n_samples must be at most 2**63; got seed={seed} and n_samples={n_samples}.")
        if cfg.seconds is None and not cfg.stream:
            raise ValueError("seconds=null goes on until Ctrl-C and needs stream=true. Set it, or give seconds=1.")
        if cfg.stdout and not cfg.stream:
            raise ValueError("stdout=true hands out what is drawn while it is drawn: it needs stream=true.")
        if cfg.stdout and n_samples != 1:
            raise ValueError(f"stdout=true is for one sample; got n_samples={n_samples}. Set n_samples=1.")
        if cfg.name is not None and (Path(str(cfg.name)).name != str(cfg.name) or str(cfg.name) in ("", "..")):
            raise ValueError(f"name must be a file name without folders; got {cfg.name!r}. Use out= for the folder.")
        named = Path(str(cfg.name)).suffix.lower()[1:]
        if named in io.FORMATS and named != cfg.format:
            raise ValueError(f"name={cfg.name} ends in another format than format={cfg.format}. Set format={named}.")
        for key in ("prompt", "out"):
            if cfg[key] == "":
                raise ValueError(f"{key} is empty. Give a path, or {key}=null.")
        # Else a folder of that name would be made, with the file inside.
        folder = Path(str(cfg.out))
        if folder.suffix.lower().lstrip(".") in io.FORMATS and not folder.is_dir():
            raise ValueError(f"out is the folder for results; got {cfg.out!r}. Name the file: name={folder.stem}.")
        for key, unset in (("prompt_seconds", None), ("prompt_resample", False)):
            if cfg.prompt is None and cfg[key] != unset:
                raise ValueError(f"{key} needs a prompt: prompt=file.wav.")

        def optional(key: str) -> float | None:
            return None if cfg[key] is None else _number(cfg, key)

        prompt, out, name = (None if cfg[key] is None else str(cfg[key]) for key in ("prompt", "out", "name"))
        return cls(
            device=device_of(cfg.device),
            sampler=Sampler(
                _number(cfg, "temperature"),
                None if cfg.top_k is None else check_count(cfg.top_k, "top_k"),
                _number(cfg, "top_p"),
                optional("mixture_temperature"),
                optional("scale_temperature"),
            ),
            seeds=tuple(range(seed, seed + n_samples)),
            seconds=optional("seconds"),
            prompt=prompt,
            prompt_seconds=optional("prompt_seconds"),
            prompt_resample=cfg.prompt_resample,
            out=out,
            name=Path(name).stem if name and named == cfg.format else name,
            format=cfg.format,
            stream=cfg.stream,
            stdout=cfg.stdout,
            overwrite=cfg.overwrite,
        )

    def n_frames(self, spec: AudioSpec) -> int | None:
        """Frames to draw; None: until Ctrl-C."""
        return None if self.seconds is None else frames_in(self.seconds, spec)

    def read_prompt(self, spec: AudioSpec) -> tuple[np.ndarray | None, int | None]:
        """The prompt as PCM (frames, channels) in the model's format, and the rate that it was converted from."""
        if self.prompt is None:
            return None, None
        info, limit = io.probe(self.prompt), None
        resampled = info.sample_rate if self.prompt_resample and info.sample_rate != spec.sample_rate else None
        if self.prompt_seconds is not None:
            limit = frames_in(self.prompt_seconds, spec, "prompt_seconds")
            fits = info.sample_rate == spec.sample_rate or resampled
            if fits and limit > resampled_length(info.frames, info.sample_rate, spec.sample_rate):
                raise ValueError(
                    f"prompt_seconds={self.prompt_seconds:g} is longer than {self.prompt} "
                    f"({info.frames / info.sample_rate:.2f} s)."
                )
        return read(self.prompt, spec, limit, self.prompt_resample), resampled

    def check_room(self, n_frames: int | None, prompt_frames: int, spec: AudioSpec) -> None:
        """Raise ValueError if a recording of that length does not fit into a file of that format."""
        most = most_frames(spec)
        if self.format == "wav" and (n_frames or 1) + prompt_frames > most:
            seconds = "null" if self.seconds is None else f"{self.seconds:g}"
            raise ValueError(
                f"seconds={seconds} does not fit into a WAV file, which holds 4 GiB: "
                f"{most / spec.sample_rate:.0f} s of this model's audio, the prompt included. "
                + ("Use stdout=true without out= and name=." if self.stream else "Use format=flac.")
            )

    def check_new(self, files: Sequence[Path]) -> None:
        """Raise ValueError if a file that a sample leaves is there already, unless it may be replaced."""
        suffixes = (f".{self.format}", ".json", f".part.{self.format}" if self.stream else ".png")
        written = [file.with_name(f"{file.stem}{suffix}") for file in files for suffix in suffixes]
        there = next((path for path in written if path.exists()), None)
        if there is not None and not self.overwrite:
            raise ValueError(f"{there} is there already. Give another seed=, name= or out=, or overwrite=true.")

    def file_names(self) -> list[str]:
        """One a sample; how sampling differs from the model itself is part of it, unless `name` says it all."""
        stem = self.name
        if stem is None:
            parts = ["sample" if self.prompt is None else f"{Path(self.prompt).stem}-continued"]
            for name, value, neutral in (
                ("temperature", self.sampler.temperature, 1.0),
                ("topk", self.sampler.top_k, None),
                ("topp", self.sampler.top_p, 1.0),
                ("mixture", self.sampler.mixture_temperature, None),
                ("scale", self.sampler.scale_temperature, None),
            ):
                if value is not None and value != neutral:
                    parts.append(f"{name}{value:g}")
            stem = "-".join(parts)
        elif len(self.seeds) == 1:
            return [f"{stem}.{self.format}"]
        return [f"{stem}-seed{seed}.{self.format}" for seed in self.seeds]


def _number(cfg: DictConfig, key: str) -> float:
    try:
        if isinstance(cfg[key], bool):
            raise TypeError
        return float(cfg[key])
    except (TypeError, ValueError):
        raise ValueError(f"{key} must be a number; got {cfg[key]!r}.") from None


@dataclass(frozen=True)
class SamplingJob:
    """Options and the model that they are for.

    `resampled` is the rate that the prompt was converted from; there is one file a seed, or none with stdout alone.
    """

    options: GenerateOptions
    model: LanguageModel
    checkpoint: Path
    engine: str
    n_frames: int | None
    prompt: np.ndarray | None = None
    resampled: int | None = None
    files: list[Path] = field(default_factory=list)

    def blocks(self) -> Iterator[Block]:
        """Begin to draw."""
        return blocks(self.model, self.n_frames, self.options.seeds, self.prompt, self.options.sampler, self.engine)

    def save_json(
        self, i: int, totals: SamplingTotals, audio: dict[str, float | None], stopped: str | None = None
    ) -> None:
        """Write <name>.json beside sample `i` with the levels `audio` and what `stopped` it, and print its line."""
        file, spec = self.files[i], self.model.spec
        score, prompt_scores = totals.scores()[i], totals.prompt_scores()
        settings = {
            "file": file.name,
            "checkpoint": str(self.checkpoint),
            "seed": self.options.seeds[i],
            "seconds": score.frames / spec.sample_rate,
            "frames": score.frames,
            "stopped": stopped,
            "engine": self.engine,
            "n_samples": len(self.options.seeds),
            "frames_per_s": totals.frames_per_s,
            "real_time_factor": totals.frames_per_s / spec.sample_rate,
            **vars(self.options.sampler),
            "prompt": self.options.prompt,
            "prompt_frames": totals.prompt_frames,
            "prompt_resampled_from": self.resampled,
            "spec": spec.to_dict(),
            "model": self.model.config.to_plain(),
            "bits_per_sample": _bits(score),
            "prompt_bits_per_sample": _bits(prompt_scores[i]) if prompt_scores else None,
            "audio": audio,
        }
        text = json.dumps(settings, indent=2, allow_nan=False) + "\n"
        write_whole(file.with_name(f"{file.stem}.json"), text.encode())
        length = (score.frames + totals.prompt_frames) / spec.sample_rate
        rate = speed(totals.frames_per_s, spec.sample_rate)
        print(f"{relative(file)}  {length:.2f} s  {score.bits_per_sample:.3f} bits/sample  {rate}", flush=True)


def _bits(score: TrackScore) -> dict[str, float]:
    """Negative log-probability in bits per sample: pooled, and for each channel."""
    return {"pooled": score.bits_per_sample} | score.channel_bits_per_sample
