"""What `generate.py` was asked for, checked (`Job`), and what it says about a sample afterwards (`save_json`)."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stereo_sashimi.audio import io
from stereo_sashimi.commands.shared.progress import speed
from stereo_sashimi.commands.shared.runs import relative
from stereo_sashimi.distributions.sampler import Sampler
from stereo_sashimi.generation.results import Block, TrackScore
from stereo_sashimi.generation.sampling import blocks
from stereo_sashimi.models.language_model import LanguageModel


@dataclass(frozen=True)
class Job:
    """Samples to be drawn.

    - `engine`: the name of the one that was chosen. `n_frames`: None until Ctrl-C.
    - `prompt_file`, `prompt`, `resampled`: the name, the PCM, and the rate that it was converted from; None without.
    - `files`: one a seed, or none where the samples are only handed out.
    """

    model: LanguageModel
    checkpoint: Path
    engine: str
    sampler: Sampler
    seeds: list[int]
    n_frames: int | None
    prompt_file: str | None
    prompt: np.ndarray | None
    resampled: int | None
    files: list[Path]

    def blocks(self) -> Iterator[Block]:
        """Begin to draw."""
        return blocks(
            self.model, self.n_frames, self.seeds, prompt=self.prompt, sampler=self.sampler, engine=self.engine
        )


def save_json(
    job: Job,
    i: int,
    score: TrackScore,
    prompt_score: TrackScore | None,
    frames_per_s: float,
    audio: dict[str, float | None],
    stopped: str | None = None,
) -> None:
    """Write <name>.json beside sample `i`, and print its line.

    - `frames_per_s`: of this sample, while drawing. `audio`: levels of the file.
    - `stopped`: what ended it before its length, if so.
    """
    file, spec, sampler = job.files[i], job.model.spec, job.sampler
    prompt_frames = 0 if job.prompt is None else len(job.prompt)
    settings = {
        "file": file.name,
        "checkpoint": str(job.checkpoint),
        "seed": job.seeds[i],
        "seconds": score.frames / spec.sample_rate,
        "frames": score.frames,
        "stopped": stopped,
        "engine": job.engine,
        "n_samples": len(job.seeds),
        "frames_per_s": frames_per_s,
        "real_time_factor": frames_per_s / spec.sample_rate,
        "temperature": sampler.temperature,
        "top_k": sampler.top_k,
        "top_p": sampler.top_p,
        "mixture_temperature": sampler.mixture_temperature,
        "scale_temperature": sampler.scale_temperature,
        "prompt": job.prompt_file,
        "prompt_frames": prompt_frames,
        "prompt_resampled_from": job.resampled,
        "spec": spec.to_dict(),
        "model": job.model.config.to_plain(),
        "bits_per_sample": _bits(score),
        "prompt_bits_per_sample": None if prompt_score is None else _bits(prompt_score),
        "audio": audio,
    }
    text = json.dumps(settings, indent=2, allow_nan=False) + "\n"
    io.write_whole(file.with_name(f"{file.stem}.json"), text.encode())
    length = (score.frames + prompt_frames) / spec.sample_rate
    rate = speed(frames_per_s, spec.sample_rate)
    print(f"{relative(file)}  {length:.2f} s  {score.bits_per_sample:.3f} bits/sample  {rate}", flush=True)


def _bits(score: TrackScore) -> dict[str, float]:
    """Negative log-probability in bits per sample: pooled, and for each channel."""
    return {"pooled": score.bits_per_sample} | score.channel_bits_per_sample
