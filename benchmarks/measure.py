"""One configuration measured: the row that `bench train` prints, as plain numbers and strings."""

import logging
import warnings
from statistics import median

import torch

from benchmarks.clock import peak_bytes, repeated
from benchmarks.config import Named, described
from benchmarks.floor import Shapes, least_work, measure_ceilings, step_shapes
from benchmarks.loader import generated, loader_samples_per_s
from benchmarks.rooms import measure_rooms
from benchmarks.step import Step
from benchmarks.table import Row
from stereo_sashimi.commands.train.allocator import keep_freed_memory
from stereo_sashimi.commands.train.header import device_name
from stereo_sashimi.ops import s4_response

GIB = 2**30


def measure(named: Named, *, warmup: int, repeats: int, load: list[float], rooms: bool = True) -> Row:
    """Time a training step of a configuration in this process, whose peak memory is part of the answer.

    - `warmup` steps are not timed, `repeats` are. `load`: the machine's before the start, only passed on.
    - `rooms`: false leaves out everything but the step itself.
    """
    found = described(named.overrides)
    cfg, datamodule, config = found
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        # Logging without a trainer is a no-op, and Lightning remarks on it.
        warnings.filterwarnings("ignore", message=r".*self\.log\(\)")
        step = Step(found)
        keep_freed_memory(step.task.model, datamodule.batch_size * datamodule.sample_len)
        times = repeated(step, step.device, warmup=warmup, repeats=repeats)
        peak = peak_bytes(step.device)
        seconds = median(times)
        batch, frames, channels = step.batch.codes.shape
        samples = batch * frames * channels
        row: Row = {
            "config": named.name,
            "overrides": list(named.overrides),
            "backend": s4_response.resolve(cfg.backend.name),
            "layer": config.model.layer.kind,
            "unet": config.model.unet,
            "head": config.decoder.kind,
            "coupling": config.decoder.coupling,
            "merge": config.encoder.merge,
            "bits": config.spec.bits,
            "channels": channels,
            "frames": frames,
            "batch": batch,
            "precision": str(cfg.trainer.precision),
            "compile": step.compiled,
            "activation_checkpointing": bool(cfg.activation_checkpointing),
            "carry_state": step.carries,
            "seconds_per_step": seconds,
            "seconds_min": min(times),
            "repeats": repeats,
            "audio_samples_per_s": samples / seconds,
            "peak_gib": peak / GIB,
            "threads": torch.get_num_threads(),
            "device": device_name(str(step.device)),
            "torch": str(torch.__version__),
            "load": load,
        }
        if rooms:
            shapes = step_shapes(config, batch, frames)
            alone = measure_rooms(step, shapes, warmup=warmup, repeats=repeats)
            alone["rest"] = seconds - sum(alone.values())
            with generated(cfg, datamodule) as noise:
                alone["data"] = samples / loader_samples_per_s(noise)
            row |= {"rooms": alone} | _floor(step, shapes, seconds)
    return row


def _floor(step: Step, shapes: Shapes, seconds: float) -> Row:
    model = step.task.model
    batch, frames, _ = step.batch.codes.shape
    head = (batch * frames, model.backbone.width, model.head.d_output)
    ceilings = measure_ceilings(step.device, (step.weight_dtype, step.product_dtype), head)
    work = least_work(model, shapes, batch, frames, step.product_dtype.itemsize)
    floor = {room: ceilings.seconds(least) for room, least in work.items()}
    total = sum(floor.values())
    return {
        "floor": floor,
        "floor_seconds": total,
        "share_of_floor": total / seconds,
        "ceilings": ceilings._asdict(),
        "least_work": {room: least._asdict() for room, least in work.items()},
    }
