"""The keys of `generate.py`, checked one by one: each error names the key and what it takes."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from stereo_sashimi.audio import io
from stereo_sashimi.audio.files import read
from stereo_sashimi.audio.resample import resampled_length
from stereo_sashimi.audio.writers import FORMATS, most_frames
from stereo_sashimi.distributions.sampler import Sampler
from stereo_sashimi.generation.sampling import frames_in
from stereo_sashimi.schema import check_type
from stereo_sashimi.spec import AudioSpec

SECTIONS = (
    *("paths", "backend", "engine", "checkpoint", "seconds", "n_samples", "prompt", "prompt_seconds"),
    *("prompt_resample", "temperature", "top_k", "top_p", "mixture_temperature", "scale_temperature", "seed"),
    *("device", "out", "name", "format", "stream", "stdout"),
)


def check(cfg: DictConfig) -> None:
    """Raise ValueError for values that are wrong whatever the model is."""
    for key in ("stream", "stdout", "prompt_resample"):
        check_type(cfg[key], bool, key)
    if cfg.format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}; got {cfg.format!r}.")
    seeds(cfg)
    if cfg.seconds is None and not cfg.stream:
        raise ValueError("seconds=null goes on until Ctrl-C and needs stream=true. Set it, or give seconds=1.")
    if cfg.stdout and not cfg.stream:
        raise ValueError("stdout=true hands out what is drawn while it is drawn: it needs stream=true.")
    if cfg.stdout and cfg.n_samples != 1:
        raise ValueError(f"stdout=true is for one sample; got n_samples={cfg.n_samples}. Set n_samples=1.")
    if cfg.name is not None and (Path(str(cfg.name)).name != str(cfg.name) or str(cfg.name) in ("", "..")):
        raise ValueError(f"name must be a file name without folders; got {cfg.name!r}. Use out= for the folder.")
    for key in ("prompt", "out"):
        if cfg[key] == "":
            raise ValueError(f"{key} is empty. Give a path, or {key}=null.")


def sampler(cfg: DictConfig) -> Sampler:
    """The sampler that the keys describe."""
    temperatures = [
        None if cfg[key] is None else _number(cfg[key], key) for key in ("mixture_temperature", "scale_temperature")
    ]
    top_k = None if cfg.top_k is None else _integer(cfg.top_k, "top_k", 1)
    return Sampler(_number(cfg.temperature, "temperature"), top_k, _number(cfg.top_p, "top_p"), *temperatures)


def seeds(cfg: DictConfig) -> list[int]:
    """One a sample."""
    n_samples, first = _integer(cfg.n_samples, "n_samples", 1), _integer(cfg.seed, "seed", 0)
    if first + n_samples > 2**63:
        raise ValueError(f"seed + n_samples must be at most 2**63; got seed={first} and n_samples={n_samples}.")
    return list(range(first, first + n_samples))


def device(name: str) -> torch.device:
    """The device of that name."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name not in ("cpu", "cuda"):
        raise ValueError(f"device must be auto, cpu or cuda; got {name!r}.")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device=cuda needs a CUDA device and there is none. Use device=auto or device=cpu.")
    return torch.device(name)


def frames(cfg: DictConfig, spec: AudioSpec) -> int | None:
    """Frames to draw; None: until Ctrl-C."""
    return None if cfg.seconds is None else frames_in(_number(cfg.seconds, "seconds"), spec)


def check_room(cfg: DictConfig, n_frames: int | None, prompt_frames: int, spec: AudioSpec) -> None:
    """Raise ValueError if a recording of that length does not fit into a file of that format."""
    most = most_frames(cfg.format, spec)
    if most is not None and (n_frames or 1) + prompt_frames > most:
        raise ValueError(
            f"seconds={cfg.seconds} does not fit into a WAV file, which holds 4 GiB: {most / spec.sample_rate:.0f} s "
            "of this model's audio, the prompt included. Use format=flac."
        )


def prompt(cfg: DictConfig, spec: AudioSpec) -> np.ndarray | None:
    """The prompt as PCM (frames, channels), in the model's format."""
    if cfg.prompt is None:
        for key, unset in (("prompt_seconds", None), ("prompt_resample", False)):
            if cfg[key] != unset:
                raise ValueError(f"{key} needs a prompt: prompt=file.wav.")
        return None
    limit = None
    if cfg.prompt_seconds is not None:
        limit = frames_in(_number(cfg.prompt_seconds, "prompt_seconds"), spec, "prompt_seconds")
        info = io.probe(str(cfg.prompt))
        fits = info.sample_rate == spec.sample_rate or cfg.prompt_resample
        if fits and limit > resampled_length(info.frames, info.sample_rate, spec.sample_rate):
            raise ValueError(
                f"prompt_seconds={cfg.prompt_seconds} is longer than {cfg.prompt} "
                f"({info.frames / info.sample_rate:.2f} s)."
            )
    return read(str(cfg.prompt), spec, limit, cfg.prompt_resample)


def stem(cfg: DictConfig, sampler: Sampler) -> str:
    """File name without the seed; how sampling differs from the model itself is part of it. See `name` for others."""
    if cfg.name is not None:
        return str(cfg.name)
    parts = ["sample" if cfg.prompt is None else f"{Path(str(cfg.prompt)).stem}-continued"]
    for name, value, neutral in (
        ("temperature", sampler.temperature, 1.0),
        ("topk", sampler.top_k, None),
        ("topp", sampler.top_p, 1.0),
        ("mixture", sampler.mixture_temperature, None),
        ("scale", sampler.scale_temperature, None),
    ):
        if value is not None and value != neutral:
            parts.append(f"{name}{value:g}")
    return "-".join(parts)


def _integer(value: Any, key: str, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{key} must be an integer of at least {least}; got {value!r}.")
    return value


def _number(value: Any, key: str) -> float:
    try:
        if isinstance(value, bool):
            raise TypeError
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{key} must be a number; got {value!r}.") from None
