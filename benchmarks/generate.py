"""Frames per second of each stream, by generation engine; keys are those of train.py.

python -m benchmarks generate experiment=audio/sashimi-dml-musdb18stereo bench.engine=reference,compiled
python -m benchmarks generate bench.checkpoint=runs/mine loader.batch_size=1,8
python -m benchmarks generate experiment=audio/sashimi-sample trainer=gpu bench.engine=cudagraph bench.prefill=88200

The model has random weights, or is bench.checkpoint; of the config only model, trainer (device, precision), backend and
loader.batch_size (streams, 1 unless given) count. Frames are drawn from the model itself, log-probabilities included.

bench.engine=auto  bench.checkpoint=null  bench.prefill=0: read a prompt of so many frames as well
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric

from benchmarks import measure
from benchmarks.configs import composed, refuse_beside
from stereo_sashimi.commands.shared.runs import find_checkpoint
from stereo_sashimi.commands.train.header import device_name
from stereo_sashimi.generation.engines.engine import ENGINES
from stereo_sashimi.generation.stream import Stream
from stereo_sashimi.models.checkpoint import load
from stereo_sashimi.models.language_model import LanguageModel

# Drawn between two looks of the caller, as by generate.py.
FRAMES_AT_ONCE = 64
ONE_STREAM = "loader.batch_size=1"


@dataclass
class Settings(measure.Settings):
    """`engine`: a name of `ENGINES`, or auto. `checkpoint`: replaces the model. `prefill`: frames of a prompt."""

    engine: str = "auto"
    checkpoint: str | None = None
    prefill: int = 0


def check(words: Sequence[str], settings: Settings) -> None:
    """Raise ValueError, naming the key, for what train.py refuses as well and for engines that there are not."""
    if settings.engine not in ("auto", *ENGINES):
        raise ValueError(f"bench.engine must be of auto, {', '.join(ENGINES)}; got {settings.engine!r}.")
    if settings.checkpoint is not None:
        refuse_beside(words, ("trainer", "backend", "loader.batch_size"))
        find_checkpoint(settings.checkpoint, "", "bench.checkpoint")
    composed([ONE_STREAM, *words])


def prepare(words: Sequence[str], settings: Settings) -> dict[str, measure.Work]:
    """Drawing whole rounds of the levels' schedule, all of which cost the same; reading a prompt, if asked for."""
    model, batch = _build(words, settings.checkpoint)
    start = time.perf_counter()
    stream = Stream(model, batch, settings.engine)
    stride = model.backbone.stride
    frames = stride * -(-FRAMES_AT_ONCE // stride)

    def draw(frames: int = frames) -> None:
        for _ in stream.generate(frames, frames_at_once=FRAMES_AT_ONCE):
            pass

    draw(1)
    # Until the first frame: compiling or loading loops, capturing a graph.
    facts = {"engine": stream.engine.name, "batch": batch, "ready_seconds": time.perf_counter() - start}
    draw(frames - 1)
    facts |= {"device": device_name(str(stream.device))}
    works = {"draw": measure.Work(draw, frames, "frames", facts)}
    if settings.prefill:
        shape = (batch, settings.prefill, model.spec.n_channels)
        prompt = torch.randint(model.spec.n_levels, shape, device=stream.device)
        works["prefill"] = measure.Work(lambda: stream.prefill(prompt), settings.prefill, "frames", facts)
    return works


def _build(words: Sequence[str], checkpoint: str | None) -> tuple[LanguageModel, int]:
    """The model, on the device and in the precision that the config names, and the number of streams."""
    cfg, datamodule, config = composed([ONE_STREAM, *words])
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    precision: Any = cfg.trainer.precision
    fabric = Fabric(accelerator=cfg.trainer.accelerator, devices=1, precision=precision)
    torch.manual_seed(cfg.train.seed)
    backend = cfg.backend.name
    path = None if checkpoint is None else find_checkpoint(checkpoint, "", "bench.checkpoint")
    model = config.build(backend) if path is None else load(path, backend)
    fabric.strategy.precision.convert_module(model)
    return model.to(fabric.device), datamodule.batch_size
