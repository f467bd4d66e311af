"""One configuration measured: the rows that `bench generate` prints, one an engine."""

import logging
import math
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric

from benchmarks.clock import peak_bytes, repeated, reset_peak, synchronize
from benchmarks.config import Described, Named, described
from benchmarks.floor_step import measure_step_ceilings, step_work, total
from benchmarks.process import Unmeasured, attempt
from benchmarks.table import Row
from stereo_sashimi.commands.train.header import device_name
from stereo_sashimi.generation.engines.engine import resolve
from stereo_sashimi.generation.stream import Stream
from stereo_sashimi.models.checkpoint import load as load_model
from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.nn.freeze import freeze

GIB = 2**30
# Drawn between two looks of the caller, as by generate.py.
FRAMES_AT_ONCE = 64
# A window is made so much longer than it has to be, as the next one may be faster.
MARGIN = 1.2
MOST_GROWTH = 16
PREFILL_WARMUP = 1024


class Settings(NamedTuple):
    """What to measure, the same for every configuration.

    - `engines`: names of `ENGINES`, or auto. `checkpoint`: a file that replaces the configured model.
    - `seconds`: that a timed window takes at least. `repeats`: windows. `prefill`: seconds of a prompt, None for none.
    """

    engines: tuple[str, ...]
    checkpoint: str | None
    seconds: float
    repeats: int
    prefill: float | None


def measure_generation(named: Named, settings: Settings, load: list[float]) -> list[Row | Unmeasured]:
    """Time each engine on one configuration in this process, the reference engine last and always.

    Returns a row an engine, or why there is none. `load`: the machine's before the start, only passed on.
    """
    found = described(named.overrides)
    batch, model = found.datamodule.batch_size, build(found, settings.checkpoint)
    results = {
        engine: attempt(f"engine={engine}", partial(measure_engine, model, batch, engine, settings))
        for engine in _names(settings.engines, model)
    }
    reference = results["reference"]
    slow = None if isinstance(reference, Unmeasured) else reference["frames_per_s"]
    about = {
        "config": settings.checkpoint or named.name,
        "overrides": list(named.overrides),
        **_description(model, batch),
        "threads": torch.get_num_threads(),
        "device": device_name(str(next(model.parameters()).device)),
        "torch": str(torch.__version__),
        "load": load,
    }
    floor = _floor(model, batch)
    prefill = None if settings.prefill is None else prefill_frames_per_s(model, batch, settings.prefill)
    rows: list[Row | Unmeasured] = []
    for engine, result in results.items():
        if isinstance(result, Unmeasured):
            rows.append(result)
            continue
        ratios = {
            "ratio_to_reference": None if slow is None else result["frames_per_s"] / slow,
            "share_of_floor": floor["floor_seconds"] * result["frames_per_s"],
            "prefill_frames_per_s": prefill,
        }
        rows.append({"engine": engine, **about, **result, **ratios, **floor})
    return rows


def build(found: Described, checkpoint: str | None) -> LanguageModel:
    """The model, on the device and in the precision that the config names; random weights without a checkpoint."""
    cfg = found.cfg
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    precision: Any = cfg.trainer.precision
    fabric = Fabric(accelerator=cfg.trainer.accelerator, devices=1, precision=precision)
    torch.manual_seed(cfg.train.seed)
    backend = cfg.backend.name
    model = found.model.build(backend) if checkpoint is None else load_model(checkpoint, backend)
    fabric.strategy.precision.convert_module(model)
    return model.to(fabric.device)


def measure_engine(model: LanguageModel, batch: int, engine: str, settings: Settings) -> Row:
    """How fast one engine draws from the model itself, and how soon. Raises EngineError where it cannot run."""
    device = next(model.parameters()).device
    reset_peak(device)
    synchronize(device)
    start = time.perf_counter()
    stream = Stream(model, batch, engine)

    def draw(frames: int) -> None:
        for _ in stream.generate(frames, frames_at_once=FRAMES_AT_ONCE):
            pass

    draw(1)
    synchronize(device)
    ready = time.perf_counter() - start
    frames = window_frames(draw, model.backbone.stride, settings.seconds, device)
    times = repeated(partial(draw, frames), device, warmup=0, repeats=settings.repeats)
    rate = frames / median(times)
    return {
        "frames_per_s": rate,
        "frames_per_s_max": frames / min(times),
        "samples_per_s": rate * batch * model.spec.n_channels,
        "ready_seconds": ready,
        "frames": frames,
        "frames_at_once": FRAMES_AT_ONCE,
        "repeats": settings.repeats,
        "peak_gib": peak_bytes(device) / GIB,
    }


def window_frames(draw: Callable[[int], None], stride: int, seconds: float, device: torch.device) -> int:
    """How many frames take at least `seconds`: whole rounds of the levels' schedule, all of which cost the same.

    Finding out draws that many, so it is the warm-up as well.
    """
    draw(stride)
    frames = stride
    while (elapsed := repeated(partial(draw, frames), device, warmup=0, repeats=1)[0]) < seconds:
        growth = min(MOST_GROWTH, max(MARGIN * seconds / elapsed, 1))
        frames = stride * (math.floor(frames / stride * growth) + 1)
    return frames


def prefill_frames_per_s(model: LanguageModel, batch: int, seconds: float) -> float:
    """How fast a prompt of `seconds` is read, in frames of each stream; no engine plays a part in that."""
    frames = max(1, round(seconds * model.spec.sample_rate))
    stream = Stream(model, batch, "reference")
    codes = torch.randint(model.spec.n_levels, (batch, frames, model.spec.n_channels), device=stream.device)
    # The first pass of a process loads compiled functions.
    stream.prefill(codes[:, :PREFILL_WARMUP])
    return frames / repeated(lambda: stream.prefill(codes), stream.device, warmup=0, repeats=1)[0]


def _names(engines: tuple[str, ...], model: LanguageModel) -> list[str]:
    """The engines to measure: `auto` by its name, each once, the reference engine last."""
    named = dict.fromkeys(resolve(engine, model).name if engine == "auto" else engine for engine in engines)
    return [*(engine for engine in named if engine != "reference"), "reference"]


def _description(model: LanguageModel, batch: int) -> Row:
    config = model.config
    return {
        "head": config.decoder.kind,
        "coupling": config.decoder.coupling,
        "channels": config.spec.n_channels,
        "bits": config.spec.bits,
        "merge": config.encoder.merge,
        "layer": config.model.layer.kind,
        "unet": config.model.unet,
        "d_model": config.model.d_model,
        "width": model.backbone.width,
        "n_layers": config.model.n_layers,
        "pool": list(config.model.pool),
        "batch": batch,
        "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
    }


def _floor(model: LanguageModel, batch: int) -> Row:
    """The floor of a frame, in seconds, and where it comes from."""
    frozen = freeze(model)
    assert isinstance(frozen, LanguageModel)
    work = step_work(frozen, batch)
    least = total(work.values())
    ceilings = measure_step_ceilings(frozen, batch, least.bytes)
    return {
        "floor_seconds": ceilings.seconds(least),
        "ceilings": ceilings._asdict(),
        "least_work": {room: part._asdict() for room, part in work.items()},
    }
