"""`generate.py`: sample audio from a checkpoint; leaves <name>.wav, .png and .json for every sample."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from stereo_sashimi.app.check import check_keys
from stereo_sashimi.app.check_values import make_folder
from stereo_sashimi.app.recover import offering
from stereo_sashimi.app.runs import find_checkpoint, relative, run_folder
from stereo_sashimi.audio import io
from stereo_sashimi.generation.files import read
from stereo_sashimi.generation.sample import Sampler
from stereo_sashimi.generation.whole import Drawn, TrackScore, draw, frames_in
from stereo_sashimi.metrics.stereo import describe
from stereo_sashimi.models.checkpoint import load
from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.ops import backend as kernel_backend
from stereo_sashimi.plots.sheet import save_png, sheet
from stereo_sashimi.spec import AudioSpec

SECTIONS = (
    *("paths", "backend", "checkpoint", "seconds", "n_samples", "prompt", "prompt_seconds", "temperature", "top_k"),
    *("top_p", "seed", "device", "out", "name"),
)


def run(cfg: DictConfig) -> list[Path]:
    """Sample as `cfg` says. Returns the WAV files."""
    check_keys(cfg, SECTIONS)
    top_k = None if cfg.top_k is None else _integer(cfg.top_k, "top_k", 1)
    sampler = Sampler(_number(cfg.temperature, "temperature"), top_k, _number(cfg.top_p, "top_p"))
    path = find_checkpoint(cfg.checkpoint, cfg.paths.runs)
    device = _device(cfg.device)
    with offering(path):
        model = load(path, cfg.backend.name).to(device)
    n_frames = _frames(cfg.seconds, model.spec, "seconds")
    prompt = _prompt(cfg, model.spec)
    chosen = kernel_backend.describe(kernel_backend.resolve(cfg.backend.name))
    print(
        f"checkpoint {relative(path)}\n{_line(model)}\nbackend {chosen}  device {device}",
        flush=True,
    )
    model.head.check_sampling(sampler)
    n_samples, first_seed = _integer(cfg.n_samples, "n_samples", 1), _integer(cfg.seed, "seed", 0)
    seeds = list(range(first_seed, first_seed + n_samples))
    stem = _stem(cfg, sampler)
    out = make_folder(cfg.out or run_folder(path) / "samples", "out")
    pcm, scores, prompt_scores = _draw(model, n_frames, prompt, sampler, seeds)
    files = []
    for i, seed in enumerate(seeds):
        name = stem if cfg.name and n_samples == 1 else f"{stem}-seed{seed}"
        settings = {
            "checkpoint": str(path),
            "seed": seed,
            "seconds": n_frames / model.spec.sample_rate,
            "frames": n_frames,
            "temperature": sampler.temperature,
            "top_k": sampler.top_k,
            "top_p": sampler.top_p,
            "prompt": cfg.prompt,
            "prompt_frames": 0 if prompt is None else len(prompt),
            "spec": model.spec.to_dict(),
            "model": model.config.to_plain(),
            "bits_per_sample": _bits(scores[i]),
            "prompt_bits_per_sample": None if prompt_scores is None else _bits(prompt_scores[i]),
            "audio": describe(pcm[i], model.spec.sample_rate),
        }
        files.append(_save(out, name, pcm[i], settings))
    return files


def _draw(model: LanguageModel, n_frames: int, prompt: np.ndarray | None, sampler: Sampler, seeds: list[int]) -> Drawn:
    """`draw` with a progress bar."""
    with Progress(
        TextColumn("sampling"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} frames  {task.fields[rate]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
    ) as progress:
        task = progress.add_task("sampling", total=n_frames, rate="")

        def on_frames(count: int) -> None:
            speed = progress.tasks[task].speed
            progress.update(task, advance=count, rate=f"{speed:.0f} frames/s" if speed else "")

        return draw(model, n_frames, seeds, prompt=prompt, sampler=sampler, on_frames=on_frames)


def _save(out: Path, name: str, pcm: np.ndarray, settings: dict[str, Any]) -> Path:
    wav, rate = out / f"{name}.wav", settings["spec"]["sample_rate"]
    io.write_pcm(wav, pcm, rate)
    bits = settings["bits_per_sample"]["pooled"]
    save_png(sheet(pcm, rate, f"{name}  {bits:.2f} bits/sample"), out / f"{name}.png")
    io.write_whole(out / f"{name}.json", (json.dumps(settings, indent=2, allow_nan=False) + "\n").encode())
    print(f"{relative(wav)}  {len(pcm) / rate:.2f} s  {bits:.3f} bits/sample", flush=True)
    return wav


def _bits(score: TrackScore) -> dict[str, float]:
    """Negative log-probability in bits per sample: pooled, and for each channel."""
    return {"pooled": score.bits_per_sample} | score.channel_bits_per_sample


def _prompt(cfg: DictConfig, spec: AudioSpec) -> np.ndarray | None:
    """The prompt as PCM (frames, channels), checked against the model."""
    if cfg.prompt is None:
        if cfg.prompt_seconds is not None:
            raise ValueError("prompt_seconds needs a prompt: prompt=file.wav.")
        return None
    frames = None
    if cfg.prompt_seconds is not None:
        frames = _frames(cfg.prompt_seconds, spec, "prompt_seconds")
        info = io.probe(cfg.prompt)
        if info.sample_rate == spec.sample_rate and frames > info.frames:
            raise ValueError(
                f"prompt_seconds={cfg.prompt_seconds} is longer than {cfg.prompt} "
                f"({info.frames / info.sample_rate:.2f} s)."
            )
    return read(cfg.prompt, spec, frames)


def _stem(cfg: DictConfig, sampler: Sampler) -> str:
    """File name without the seed: what differs from plain sampling is part of it, so that nothing is overwritten."""
    if cfg.name is not None:
        if Path(str(cfg.name)).name != str(cfg.name):
            raise ValueError(f"name must be a file name without folders; got {cfg.name!r}. Use out= for the folder.")
        return str(cfg.name)
    parts = ["sample" if cfg.prompt is None else f"{Path(cfg.prompt).stem}-continued"]
    for name, value, neutral in (
        ("temperature", sampler.temperature, 1.0),
        ("topk", sampler.top_k, None),
        ("topp", sampler.top_p, 1.0),
    ):
        if value != neutral:
            parts.append(f"{name}{value:g}")
    return "-".join(parts)


def _integer(value: Any, key: str, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{key} must be an integer of at least {least}; got {value!r}.")
    return value


def _number(value: Any, key: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{key} must be a number; got {value!r}.") from None


def _frames(value: Any, spec: AudioSpec, key: str) -> int:
    return frames_in(_number(value, key), spec, key)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name not in ("cpu", "cuda"):
        raise ValueError(f"device must be auto, cpu or cuda; got {name!r}.")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device=cuda needs a CUDA device and there is none. Use device=auto or device=cpu.")
    return torch.device(name)


def _line(model: LanguageModel) -> str:
    spec = model.spec
    return (
        f"model {sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters  {spec.n_channels} channels  "
        f"{spec.sample_rate} Hz  {spec.bits} bit {spec.quantization}  decoder {model.config.decoder.kind}, "
        f"{model.config.decoder.coupling}"
    )
