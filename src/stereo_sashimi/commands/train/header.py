"""The lines at the start of a run: what is trained, on what, where it goes, how to resume."""

import torch

from stereo_sashimi.data.datamodule import AudioDataModule
from stereo_sashimi.data.split import doubt, duration, listed
from stereo_sashimi.models.language_model_config import BackboneConfig
from stereo_sashimi.models.no_backbone import NoBackboneConfig
from stereo_sashimi.ops import s4_response
from stereo_sashimi.tasks import AutoregressiveTask
from stereo_sashimi.tasks.optim import parameter_groups


def header(
    task: AutoregressiveTask,
    datamodule: AudioDataModule,
    *,
    backend: str,
    device: str,
    precision: str,
    run: str,
    seed: int,
    resume: str,
    ema: float | None = None,
) -> str:
    """Lines with units; `backend` is what was asked for, `device` a torch device string, `ema` a decay or None."""
    spec, config = task.spec, task.model.config
    clips = {split: len(data) for split, data in datamodule.datasets.items()}
    rate = f"{spec.sample_rate / 1000:g} kHz"
    channels = f"{spec.n_channels} channel{'s' if spec.n_channels > 1 else ''} ({', '.join(spec.channel_names)})"
    parameters = sum(p.numel() for p in task.model.parameters())
    groups = {name: sum(p.numel() for p in group.values()) for name, group in parameter_groups(task.model).items()}
    chosen = s4_response.describe(s4_response.resolve(backend))
    clip = f"clips of {datamodule.sample_len / spec.sample_rate:.2f} s"
    counts = " + ".join(f"{n:,} {split}" for split, n in clips.items())
    scheduler = "constant" if task.scheduler_config is None else task.scheduler_config.kind
    model, optimizer = config.model, task.optimizer_config
    rows = datamodule.batch_size
    carried = f"  state carried over in {rows} lane{'s' if rows > 1 else ''}" if datamodule.carry_state else ""
    # Ways of running that are not the default.
    ways = "  compiled" if task.compiled else ""
    ways += "  activation checkpointing" if task.model.backbone.activation_checkpointing else ""
    lines = {
        "data": f"{datamodule.name}  {channels}  {rate}  {spec.bits} bit {spec.quantization}, {spec.n_levels:,} levels"
        f"  {counts} {clip}{_remixed(datamodule)}{carried}",
        "split": _split(datamodule),
        **_warning(datamodule),
        "model": f"{_backbone(model, parameters)}{'' if config.experts is None else '  adaptive experts'}  "
        f"decoder {config.decoder.kind}, {config.decoder.coupling}",
        "optim": f"{optimizer.kind}  lr {optimizer.lr:g} (ssm {optimizer.ssm_lr or optimizer.lr:g})  {scheduler}  "
        + "  ".join(f"{name} {n:,}" for name, n in groups.items() if n)
        + ("" if ema is None else f"  ema {ema:g}"),
        "backend": f"{chosen}  precision {precision}{ways}  device {device_name(device)}  torch {torch.__version__}",
        "run": f"{run}  seed {seed}",
        "resume": resume,
    }
    return "\n".join(f"{name:<8} {text}" for name, text in lines.items())


def _backbone(model: BackboneConfig, parameters: int) -> str:
    if isinstance(model, NoBackboneConfig):
        return f"no network, head of {parameters / 1e3:.1f} k parameters"
    pool = "x".join(str(p) for p in model.pool) or "none"
    return (
        f"SaShiMi{' U-Net' if model.unet else ''}  {parameters / 1e6:.2f} M parameters  d_model {model.d_model}  "
        f"layers {model.n_layers}  pool {pool}  {model.layer.kind}"
    )


def _split(datamodule: AudioDataModule) -> str:
    """What split the files, and of each split how many there are, how long (if in use here) and the first names."""
    parts = [datamodule.split.rule]
    for split, files in datamodule.split.files.items():
        data = datamodule.datasets.get(split)
        length = "" if data is None else f", {duration(data.seconds)}"
        names = listed([path.name for path in files], 2)
        parts.append(f"{split} {len(files):,} file{'s' if len(files) > 1 else ''}{length} ({names})")
    if datamodule.split.left_out:
        parts.append(f"left out: {datamodule.split.left_out}")
    return "  ".join(parts)


def _warning(datamodule: AudioDataModule) -> dict[str, str]:
    """A line on a validation split that is silent or tiny; files are read up to the first sound."""
    valid = datamodule.datasets["valid"]
    text = doubt(len(valid), valid.seconds, silent=valid.is_silent())
    return {} if text is None else {"warning": text}


def _remixed(datamodule: AudioDataModule) -> str:
    """What was done to files with another number of channels than the data set, if there are any."""
    files = sum(data.n_remixed for data in datamodule.datasets.values())
    if not files:
        return ""
    found, done = ("stereo", "mixed down to mono") if datamodule.d_input == 1 else ("mono", "copied to both channels")
    return f"  {files:,} {found} file{'s' if files > 1 else ''} {done}"


def device_name(device: str) -> str:
    """ "NVIDIA ..." for a CUDA device, else the device's own name and its threads."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(torch.device(device))
    return f"{device} ({torch.get_num_threads()} threads)"
