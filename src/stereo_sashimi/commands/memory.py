"""How much memory a training run will take, before it runs: no data, no GPU and no memory are needed for the answer.

The keys are in configs/memory.yaml, the method is in `memory_estimate.py`.
"""

import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from omegaconf import DictConfig, open_dict

from stereo_sashimi.commands.memory_estimate import Estimate, Load, estimate
from stereo_sashimi.commands.shared.checks import check_keys
from stereo_sashimi.commands.train.build import build_datamodule, build_model_config
from stereo_sashimi.metrics.likelihood import check_metrics
from stereo_sashimi.models.language_model_config import LanguageModelConfig
from stereo_sashimi.models.sashimi import SashimiConfig
from stereo_sashimi.nn import DMLHeadConfig, EmbeddingConfig
from stereo_sashimi.spec import AudioSpec
from stereo_sashimi.tasks.step_lines import peak_gib

MIB, GIB = 2**20, 2**30
# Weights, and what keeps sets of their size; the rest of a report are activations.
SETS = ("parameters", "gradients", "moments", "copies of weights", "optimizer")
SHORTEST = 256
# Freed blocks that glibc keeps, as a share of the tensors: 0.07 to 0.5 in the runs of docs/scale.md, next to nothing
# with MALLOC_MMAP_THRESHOLD_=131072 in the environment.
HEAP = 0.25


def describe(cfg: DictConfig) -> tuple[LanguageModelConfig, Load]:
    """The model and the step of a composed training config. No file is read: any rate does for the estimate."""
    check_keys(cfg)
    with open_dict(cfg):
        cfg.dataset.sample_rate = cfg.dataset.sample_rate or 44100
        cfg.dataset.path = "" if "???" in str(cfg.dataset._get_node("path")) else cfg.dataset.path
    datamodule, trainer = build_datamodule(cfg), cfg.trainer
    several = (
        "ddp" in str(trainer.strategy) or trainer.num_nodes > 1 or str(trainer.devices) not in ("1", "auto", "[0]")
    )
    targets = [str(node.get("_target_")) for node in cfg.callbacks.values() if node is not None]
    averages = any(target.endswith(("EMA", "WeightAveraging")) for target in targets)
    load = Load(
        batch_size=datamodule.batch_size,
        frames=datamodule.sample_len,
        precision=str(trainer.precision),
        backend=cfg.backend.name,
        ranks=bool(check_metrics(list(cfg.task.metrics))),
        copies=int(several) + int(averages),
        cuda=trainer.accelerator in ("gpu", "cuda") or (trainer.accelerator == "auto" and torch.cuda.is_available()),
        activation_checkpointing=cfg.activation_checkpointing,
    )
    return build_model_config(cfg, datamodule), load


def total_bytes(found: Estimate, load: Load, process: int) -> int:
    """What the machine sees of a run: tensors, what the allocator keeps besides on CPUs, and the process."""
    return process + found.peak + (0 if load.cuda else int(HEAP * found.peak))


def process_bytes() -> int:
    """Memory of this process after a tiny step: Python and the libraries that a training run loads as well."""
    model = LanguageModelConfig(
        AudioSpec(44100, 1, 8), EmbeddingConfig(4), SashimiConfig(d_model=4, n_layers=1), DMLHeadConfig()
    ).build()
    optimizer = torch.optim.AdamW(model.parameters())
    model.log_prob(torch.zeros(1, 64, 1, dtype=torch.int64)).mean().backward()
    optimizer.step()
    peak = peak_gib(torch.device("cpu"))
    if math.isnan(peak):
        raise ValueError("This system does not tell the memory of a process. Estimate on Linux or macOS.")
    return int(peak * 2**30)


def available_bytes(cuda: bool) -> int | None:
    """Free memory of the first CUDA device, or of this machine; None where it cannot be told."""
    if cuda:
        return torch.cuda.mem_get_info(0)[0] if torch.cuda.is_available() else None
    info = Path("/proc/meminfo")
    if not info.is_file():
        return None
    fields = dict(line.split(":", 1) for line in info.read_text().splitlines())
    return int(fields["MemAvailable"].split()[0]) * 1024


def report(config: LanguageModelConfig, load: Load, found: Estimate, process: int, available: int | None) -> str:
    """The table that the command prints, in MiB."""
    device = "cuda" if load.cuda else "cpu"
    rows = {name: found.parts[name] for name in SETS if name in found.parts} | found.parts | {"tensors": found.peak}
    if not load.cuda:
        rows["allocator, about"] = int(HEAP * found.peak)
    rows["CUDA context, about" if load.cuda else "process"] = process
    rows["total"] = total_bytes(found, load, process)
    if available is not None:
        rows["available"] = available
    lines = [
        f"step      {load.batch_size} clips x {load.frames:,} frames x {config.spec.n_channels} channels, "
        f"{load.precision}, {device}{', activation checkpointing' if load.activation_checkpointing else ''}",
        f"model     {found.parameters / 1e6:.2f} M parameters, decoder {config.decoder.kind}, "
        f"encoder.merge {config.encoder.merge}",
        f"peak      in {found.phase}",
        "",
    ]
    for name, size in rows.items():
        lines += [""] if name == "tensors" else []
        lines.append(f"{name:<24}{size / MIB:>12,.1f} MiB")
    return "\n".join(lines + ([] if available is not None else ["available unknown; give it: available=GIB"]))


def remedy(config: LanguageModelConfig, load: Load, process: int, available: int) -> str:
    """Overrides under which the run fits, each one tried; else what could be changed besides."""
    for tried in _smaller(load):
        if total_bytes(estimate(config, tried), tried, process) > available:
            continue
        # The same number of clips behind a step as before.
        accumulate = -(-load.batch_size // tried.batch_size)
        words = [f"loader.batch_size={tried.batch_size}"] if tried.batch_size != load.batch_size else []
        words += [f"trainer.accumulate_grad_batches={accumulate}"] if accumulate > 1 else []
        if tried.activation_checkpointing != load.activation_checkpointing:
            words.append("activation_checkpointing=true")
        words += [f"dataset.sample_len={tried.frames}"] if tried.frames != load.frames else []
        return f"fits with {' '.join(words)}"
    ideas = ["a smaller model.d_model or model.n_layers"]
    ideas += ["decoder=dml"] if config.decoder.kind == "categorical" else []
    ideas += ["encoder.merge=sum"] if config.encoder.merge == "concat" and config.spec.n_channels > 1 else []
    return f"even one clip of {min(load.frames, SHORTEST)} frames does not fit; try {', '.join(ideas)}"


def _smaller(load: Load) -> Iterator[Load]:
    """Smaller batches cost least, then computing activations twice; shorter clips are another training."""
    for checkpointing in dict.fromkeys((load.activation_checkpointing, True)):
        yield (tried := replace(load, activation_checkpointing=checkpointing))
        while tried.batch_size > 1:
            yield (tried := replace(tried, batch_size=tried.batch_size // 2))
    while tried.frames > SHORTEST:
        yield (tried := replace(tried, frames=max(SHORTEST, tried.frames // 2)))


def run(cfg: DictConfig) -> None:
    """Print the estimate; exit with 1 if it does not fit."""
    with open_dict(cfg):
        gib = cfg.pop("available")
    if gib is not None and (isinstance(gib, bool) or not isinstance(gib, int | float) or not gib > 0):
        raise ValueError(f"available must be a number of GiB above 0, as available=80; got {gib!r}.")
    config, load = describe(cfg)
    # A CUDA context with the libraries' kernels lies outside of PyTorch's allocator.
    process = GIB // 2 if load.cuda else process_bytes()
    found = estimate(config, load)
    available = int(gib * GIB) if gib is not None else available_bytes(load.cuda)
    print(report(config, load, found, process, available))
    if available is None:
        return
    if total_bytes(found, load, process) <= available:
        print("fits")
        return
    print(f"does not fit; {remedy(config, load, process, available)}")
    sys.exit(1)
