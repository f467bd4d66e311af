"""`generate.py`: sample audio from a checkpoint; leaves <name>.wav, .png and .json for every sample."""

import signal
import sys
from contextlib import nullcontext, redirect_stdout
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from stereo_sashimi.audio import io
from stereo_sashimi.audio.writers import PcmPipe
from stereo_sashimi.commands.generate import generate_options as options
from stereo_sashimi.commands.generate.generate_options import SECTIONS as SECTIONS
from stereo_sashimi.commands.generate.job import Job, save_json
from stereo_sashimi.commands.generate.live import live
from stereo_sashimi.commands.shared.check_keys import check_keys
from stereo_sashimi.commands.shared.check_values import make_folder
from stereo_sashimi.commands.shared.progress import DrawMeter
from stereo_sashimi.commands.shared.recover import offering
from stereo_sashimi.commands.shared.runs import find_checkpoint, name_of, results_folder
from stereo_sashimi.commands.shared.signals import Signals, Stopped, listening
from stereo_sashimi.generation.engines.engine import resolve
from stereo_sashimi.metrics.stereo import describe
from stereo_sashimi.models.checkpoint import load
from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.ops import s4_response
from stereo_sashimi.plots.sheet import save_png, sheet


def run(cfg: DictConfig) -> list[Path]:
    """Sample as `cfg` says. Returns the audio files.

    Ctrl-C and SIGTERM raise SystemExit with 128 and the signal's number; a streamed sample is completed first.
    """
    check_keys(cfg, SECTIONS)
    options.check(cfg)
    pipe = _pipe() if cfg.stdout else None
    try:
        # Then the samples are alone on standard output.
        with listening() as signals, redirect_stdout(sys.stderr) if pipe else nullcontext():
            return _run(cfg, signals, pipe)
    except Stopped as stopped:
        if stopped.number != signal.SIGPIPE:
            print("\nInterrupted.", file=sys.stderr, flush=True)
        raise SystemExit(stopped.code) from None


def _run(cfg: DictConfig, signals: Signals, pipe: PcmPipe | None) -> list[Path]:
    sampler, seeds = options.sampler(cfg), options.seeds(cfg)
    path = find_checkpoint(cfg.checkpoint, cfg.paths.runs)
    device = options.device(cfg.device)
    with offering(path):
        model = load(path, cfg.backend.name).to(device)
    model.head.check_sampling(sampler)
    engine = resolve(str(cfg.engine), model)
    n_frames, prompt = options.frames(cfg, model.spec), options.prompt(cfg, model.spec)
    backend = s4_response.describe(s4_response.resolve(cfg.backend.name))
    print(
        f"checkpoint {name_of(path)}\n{model_line(model)}\nbackend {backend}  engine {engine.name}  device {device}",
        flush=True,
    )
    if (waiting := engine.preparation()) is not None:
        print(f"engine {engine.name}: {waiting}", flush=True)
    resampled = None
    if prompt is not None and (rate := io.probe(str(cfg.prompt)).sample_rate) != model.spec.sample_rate:
        resampled = rate
        print(f"prompt {cfg.prompt} resampled from {rate} Hz to {model.spec.sample_rate} Hz", flush=True)
    stem, files = options.stem(cfg, sampler), []
    if pipe is None or cfg.out is not None or cfg.name is not None:
        options.check_room(cfg, n_frames, 0 if prompt is None else len(prompt), model.spec)
        out = make_folder(str(cfg.out) if cfg.out else results_folder(path, cfg.paths.runs) / "samples", "out")
        single = cfg.name is not None and len(seeds) == 1
        files = [out / f"{stem if single else f'{stem}-seed{seed}'}.{cfg.format}" for seed in seeds]
    prompt_file = None if cfg.prompt is None else str(cfg.prompt)
    job = Job(model, path, engine.name, sampler, seeds, n_frames, prompt_file, prompt, resampled, files)
    return live(job, signals, pipe) if cfg.stream else _whole(job, signals)


def _whole(job: Job, signals: Signals) -> list[Path]:
    """Draw everything, then write it, with pictures; a signal waits until all of that is done."""
    spec = job.model.spec
    with DrawMeter(spec, job.n_frames) as meter:
        pcms = np.concatenate([block.pcm for block in meter.watch(job.blocks())], axis=1)
    scores, prompt_scores = meter.totals.scores(), meter.totals.prompt_scores()
    signals.hold()
    for i, file in enumerate(job.files):
        pcm, score = pcms[i], scores[i]
        io.write_pcm(file, pcm, spec.sample_rate)
        prompt_score = prompt_scores[i] if prompt_scores else None
        save_json(job, i, score, prompt_score, meter.totals.frames_per_s, describe(pcm, spec.sample_rate))
        title = f"{file.stem}  {score.bits_per_sample:.2f} bits/sample"
        save_png(sheet(pcm, spec.sample_rate, title), file.with_name(f"{file.stem}.png"))
    signals.release()
    return job.files


def _pipe() -> PcmPipe:
    if sys.stdout is None:
        raise ValueError(
            "stdout=true writes raw samples, and standard output is closed. Give them to a player or a file."
        )
    if sys.stdout.isatty():
        raise ValueError(
            "stdout=true writes raw samples, and standard output is a terminal. Give them to a player:\n"
            "  python generate.py stream=true stdout=true .. | aplay -f S16_LE -c 2 -r 44100"
        )
    sys.stdout.flush()
    return PcmPipe(sys.stdout.fileno())


def model_line(model: LanguageModel) -> str:
    """A line about a model, for people."""
    spec = model.spec
    return (
        f"model {sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters  {spec.n_channels} channels  "
        f"{spec.sample_rate} Hz  {spec.bits} bit {spec.quantization}  decoder {model.config.decoder.kind}, "
        f"{model.config.decoder.coupling}"
    )
