"""`generate.py`: sample audio from a checkpoint; leaves <name>.wav, .png and .json for every sample."""

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from stereo_sashimi.app.check import check_keys
from stereo_sashimi.app.runs import find_checkpoint, relative, run_folder
from stereo_sashimi.audio import io
from stereo_sashimi.audio.quantize import decode, encode
from stereo_sashimi.generation.sample import Sampler
from stereo_sashimi.generation.stream import Stream
from stereo_sashimi.metrics.stereo import describe
from stereo_sashimi.models.checkpoint import load
from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.ops.backend import resolve
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
    model = load(path, cfg.backend.name).to(device)
    n_frames = _frames(cfg.seconds, model.spec, "seconds")
    prompt = _prompt(cfg, model.spec)
    print(
        f"checkpoint {relative(path)}\n{_line(model)}\nbackend {resolve(cfg.backend.name)}  device {device}", flush=True
    )
    model.head.check_sampling(sampler.top_k, sampler.top_p)
    n_samples, first_seed = _integer(cfg.n_samples, "n_samples", 1), _integer(cfg.seed, "seed", 0)
    seeds = list(range(first_seed, first_seed + n_samples))
    stem = _stem(cfg, sampler)
    out = Path(cfg.out) if cfg.out else run_folder(path) / "samples"
    out.mkdir(parents=True, exist_ok=True)
    pcm, prompt_nats, nats = _draw(model, n_frames, prompt, sampler, seeds)
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
            "bits_per_sample": _bits(nats[i], model.spec),
            "prompt_bits_per_sample": None if prompt_nats is None else _bits(prompt_nats[i], model.spec),
            "audio": describe(pcm[i], model.spec.sample_rate),
        }
        files.append(_save(out, name, pcm[i], settings))
    return files


def _draw(
    model: LanguageModel, n_frames: int, prompt: np.ndarray | None, sampler: Sampler, seeds: list[int]
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """PCM (samples, frames, channels) with the prompt in front, and nats (samples, frames, channels) of both parts."""
    stream = Stream(model, len(seeds))
    codes: list[Tensor] = []
    prompt_nats = None
    if prompt is not None:
        given = torch.from_numpy(encode(prompt, model.spec)).expand(len(seeds), -1, -1)
        prompt_nats = -stream.prefill(given.to(stream.device)).double().cpu().numpy()
        codes.append(given)
    nats = []
    with Progress(
        TextColumn("sampling"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} frames  {task.fields[rate]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
    ) as progress:
        task = progress.add_task("sampling", total=n_frames, rate="")
        for frame in stream.generate(n_frames, sampler, seeds):
            codes.append(frame.codes.cpu())
            nats.append(-frame.log_prob.double().cpu())
            speed = progress.tasks[task].speed
            progress.update(task, advance=1, rate=f"{speed:.0f} frames/s" if speed else "")
    drawn = torch.cat(codes, dim=1).numpy()
    return np.stack([decode(row, model.spec) for row in drawn]), prompt_nats, torch.cat(nats, dim=1).numpy()


def _save(out: Path, name: str, pcm: np.ndarray, settings: dict[str, Any]) -> Path:
    wav, rate = out / f"{name}.wav", settings["spec"]["sample_rate"]
    io.write_pcm(wav, pcm, rate)
    bits = settings["bits_per_sample"]["pooled"]
    save_png(sheet(pcm, rate, f"{name}  {bits:.2f} bits/sample"), out / f"{name}.png")
    io.write_whole(out / f"{name}.json", (json.dumps(settings, indent=2, allow_nan=False) + "\n").encode())
    print(f"{relative(wav)}  {len(pcm) / rate:.2f} s  {bits:.3f} bits/sample", flush=True)
    return wav


def _bits(nats: np.ndarray, spec: AudioSpec) -> dict[str, float]:
    """Negative log-probability in bits per sample: pooled, and for each channel."""
    bits = nats / math.log(2)
    return {"pooled": float(bits.mean())} | {
        name: float(bits[:, c].mean()) for c, name in enumerate(spec.channel_names)
    }


def _prompt(cfg: DictConfig, spec: AudioSpec) -> np.ndarray | None:
    """The prompt as PCM (frames, channels), checked against the model."""
    if cfg.prompt is None:
        if cfg.prompt_seconds is not None:
            raise ValueError("prompt_seconds needs a prompt: prompt=file.wav.")
        return None
    info = io.probe(cfg.prompt)
    if info.sample_rate != spec.sample_rate:
        raise ValueError(
            f"prompt {cfg.prompt} has {info.sample_rate} Hz, the model {spec.sample_rate} Hz. Resample the file first."
        )
    if info.n_channels != spec.n_channels:
        raise ValueError(
            f"prompt {cfg.prompt} has {info.n_channels} channels, the model {spec.n_channels}. "
            "Give a file with the model's channels."
        )
    frames = None if cfg.prompt_seconds is None else _frames(cfg.prompt_seconds, spec, "prompt_seconds")
    if frames is not None and frames > info.frames:
        raise ValueError(
            f"prompt_seconds={cfg.prompt_seconds} is longer than {cfg.prompt} ({info.frames / info.sample_rate:.2f} s)."
        )
    if info.frames == 0:
        raise ValueError(f"prompt {cfg.prompt} has no frames. Give a file with audio, or no prompt.")
    if info.subtype in io.WIDE:
        raise ValueError(f"prompt {cfg.prompt} has {info.subtype[4:]}-bit samples. Convert it to 16 bits first.")
    pcm, _ = io.read_pcm(cfg.prompt, 0, frames)
    return pcm


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
    seconds = _number(value, key)
    frames = round(seconds * spec.sample_rate) if math.isfinite(seconds) else 0
    if frames < 1:
        raise ValueError(f"{key} must give at least one frame at {spec.sample_rate} Hz; got {value}.")
    return frames


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
