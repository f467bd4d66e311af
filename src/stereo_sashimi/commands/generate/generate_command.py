"""`generate.py`: sample audio from a checkpoint; leaves <name>.wav, .png and .json for every sample."""

import sys
from contextlib import nullcontext, redirect_stdout
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from stereo_sashimi.audio.io import write_pcm
from stereo_sashimi.audio.writers import PcmPipe
from stereo_sashimi.commands.cli import keys
from stereo_sashimi.commands.generate.generate_options import GenerateOptions, SamplingJob
from stereo_sashimi.commands.generate.live import draw_live
from stereo_sashimi.commands.shared.checks import check_keys, make_folder
from stereo_sashimi.commands.shared.loading import load_model, model_line
from stereo_sashimi.commands.shared.progress import DrawMeter
from stereo_sashimi.commands.shared.runs import name_of, results_folder, shown
from stereo_sashimi.generation.engines.engine import resolve
from stereo_sashimi.metrics.stereo import describe
from stereo_sashimi.ops import s4_response
from stereo_sashimi.signals import PIPE, Deferral, Stopped, listening


def run(cfg: DictConfig) -> list[Path]:
    """Sample as `cfg` says. Returns the audio files.

    Ctrl-C, SIGTERM and SIGHUP raise SystemExit with 128 and the signal's number; a streamed sample is completed first.
    """
    check_keys(cfg, keys("generate"))
    options = GenerateOptions.from_config(cfg)
    pipe = _pipe() if options.stdout else None
    try:
        # Then the samples are alone on standard output.
        with listening() as signals, redirect_stdout(sys.stderr) if pipe else nullcontext():
            job = _prepare(cfg, options)
            return draw_live(job, signals, pipe) if options.stream else _draw_whole(job, signals)
    except Stopped as stopped:
        if stopped.number != PIPE:
            stopped.leave("Interrupted.")
        raise SystemExit(stopped.code) from None


def _prepare(cfg: DictConfig, options: GenerateOptions) -> SamplingJob:
    """Load the model, check the options against it, make the folder, and print what will be done."""
    path, model = load_model(cfg.checkpoint, cfg.paths.runs, cfg.backend.name)
    model, spec = model.to(options.device), model.spec
    model.head.check_sampling(options.sampler)
    engine = resolve(str(cfg.engine), model)
    n_frames, (prompt, resampled) = options.n_frames(spec), options.read_prompt(spec)
    backend = s4_response.describe(s4_response.resolve(cfg.backend.name))
    print(f"checkpoint {name_of(path)}\n{model_line(model)}")
    print(f"backend {backend}  engine {engine.name}  device {options.device}", flush=True)
    if (waiting := engine.preparation(model)) is not None:
        print(f"engine {engine.name}: {waiting}", flush=True)
    if resampled is not None:
        print(f"prompt {shown(str(options.prompt))} resampled from {resampled} Hz to {spec.sample_rate} Hz", flush=True)
    files = []
    if not options.stdout or options.out is not None or options.name is not None:
        options.check_room(n_frames, 0 if prompt is None else len(prompt), spec)
        out = make_folder(options.out or str(results_folder(path, cfg.paths.runs) / "samples"), "out")
        files = [out / name for name in options.file_names()]
        options.check_new(files)
    return SamplingJob(options, model, path, engine.name, n_frames, prompt, resampled, files)


def _draw_whole(job: SamplingJob, signals: Deferral) -> list[Path]:
    """Draw everything, then write it, with pictures; a signal waits until all of that is done."""
    # It loads matplotlib and SciPy, which what is heard while it is drawn need not wait for.
    from stereo_sashimi.plots.sheet import save_png, sheet

    rate = job.model.spec.sample_rate
    with DrawMeter(job.model.spec, job.n_frames) as meter:
        samples = np.concatenate([block.pcm for block in meter.watch(job.blocks())], axis=1)
    signals.hold()
    for i, (file, pcm) in enumerate(zip(job.files, samples, strict=True)):
        write_pcm(file, pcm, rate)
        job.save_json(i, meter.totals, describe(pcm, rate))
        title = f"{shown(file.stem)}  {meter.totals.scores()[i].bits_per_sample:.2f} bits/sample"
        save_png(sheet(pcm, rate, title, meter.totals.prompt_frames), file.with_name(f"{file.stem}.png"))
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
