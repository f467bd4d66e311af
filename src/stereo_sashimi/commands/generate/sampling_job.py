"""Samples to be drawn (`SamplingJob`), and what is said about them afterwards."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from stereo_sashimi.audio.io import write_whole
from stereo_sashimi.commands.generate.generate_options import GenerateOptions
from stereo_sashimi.commands.shared.progress import speed
from stereo_sashimi.commands.shared.runs import relative
from stereo_sashimi.generation.results import Block, SamplingTotals, TrackScore
from stereo_sashimi.generation.sampling import blocks
from stereo_sashimi.models.language_model import LanguageModel


@dataclass(frozen=True)
class SamplingJob:
    """Options and the model that they are for.

    Attributes:
        engine: The name of the one that was chosen.
        n_frames: None until Ctrl-C.
        prompt, resampled: PCM, and the rate that it was converted from.
        files: One a seed, or none where the samples are only handed out.
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
        """Write <name>.json beside sample `i`, and print its line.

        Args:
            i: Number of the sample.
            totals: Of all samples.
            audio: Levels of the file.
            stopped: What ended it before its length, if so.
        """
        file, spec, sampler = self.files[i], self.model.spec, self.options.sampler
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
            "temperature": sampler.temperature,
            "top_k": sampler.top_k,
            "top_p": sampler.top_p,
            "mixture_temperature": sampler.mixture_temperature,
            "scale_temperature": sampler.scale_temperature,
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
