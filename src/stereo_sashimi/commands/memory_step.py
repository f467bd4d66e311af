"""One training step without data and without memory: what it would take, part by part. `memory.py` is the command."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from stereo_sashimi.commands.memory_tracker import MemoryTracker
from stereo_sashimi.models.language_model import LanguageModel, LanguageModelConfig

PRECISIONS: dict[str, tuple[torch.dtype, torch.dtype | None]] = {
    # Of the weights, and of what autocast turns products into.
    "32-true": (torch.float32, None),
    "64-true": (torch.float64, None),
    "bf16-mixed": (torch.float32, torch.bfloat16),
    "16-mixed": (torch.float32, torch.float16),
}


@dataclass(frozen=True)
class Load:
    """What a step is made of.

    - `batch_size` clips of `frames` frames in this process; `precision` of Lightning; `backend` of the kernels.
    - `ranks`: whether accuracies are computed.
    - `copies`: further sets of the weights that are kept: gradient buckets of several processes, averaged weights.
    - `cuda`: count as PyTorch's CUDA allocator and fused optimizers do.
    - `activation_checkpointing`: as in `Sashimi`.

    `compile` is not among them: fused blocks take what the others take, or less.
    """

    batch_size: int
    frames: int
    precision: str = "32-true"
    backend: str = "auto"
    ranks: bool = False
    copies: int = 0
    cuda: bool = False
    activation_checkpointing: bool = False


@dataclass(frozen=True)
class Estimate:
    """Bytes: `peak` of all tensors, `parts` of it, the phase it falls in, and the number of `parameters`."""

    peak: int
    parts: dict[str, int]
    phase: str
    parameters: int


def estimate(config: LanguageModelConfig, load: Load) -> Estimate:
    """The peak of a training step of `config` under `load`. Raises ValueError for a precision or backend unknown here.

    The step is the second one: gradients of the step before are alive during the forward pass, as Lightning clears
    them behind it, and the optimizer has its moments.
    """
    if load.precision not in PRECISIONS:
        raise ValueError(f"the estimate knows trainer.precision {', '.join(PRECISIONS)}; got {load.precision!r}.")
    if load.backend in ("keops", "triton"):
        raise ValueError(
            f"the estimate cannot look into backend={load.backend}; use backend=auto, krylov or reference."
        )
    dtype, cast = PRECISIONS[load.precision]
    tracker = MemoryTracker(512 if load.cuda else 64)
    # (phase, peak, parts)
    phases: list[tuple[str, int, dict[str, int]]] = []

    def end(phase: str, beyond: int = 0) -> None:
        parts = {name: size for name, size in tracker.at_peak.items() if size}
        if beyond:
            parts["optimizer"] = beyond
        phases.append((phase, tracker.peak + beyond, parts))
        tracker.reset_peak()

    autocast: Callable[[], AbstractContextManager[object]] = nullcontext
    if cast is not None:

        def autocast() -> AbstractContextManager[object]:
            return torch.autocast("cpu", dtype=cast)

    before = torch.get_default_dtype()
    # Lightning's precisions set the default as well.
    torch.set_default_dtype(dtype)
    try:
        with FakeTensorMode(), tracker:
            with tracker.in_room("parameters"):
                model = config.build(load.backend, load.activation_checkpointing)
            end("building the model")
            weights = [p for p in model.parameters() if p.requires_grad]
            kept = _like(tracker, "moments", weights, 2) + _like(tracker, "copies of weights", weights, load.copies)
            with tracker.in_room("batch"):
                codes = torch.zeros(load.batch_size, load.frames, config.spec.n_channels, dtype=torch.int64)
            for weight, gradient in zip(weights, _like(tracker, "gradients", weights, 1), strict=True):
                weight.grad = gradient
                weight.register_post_accumulate_grad_hook(lambda p: tracker.move(p.grad, "gradients"))
            del weight, gradient
            with tracker.watch(rooms(model)), autocast():
                loss = _loss(model, codes, load.ranks, tracker)
            end("forward")
            model.zero_grad()
            with tracker.in_room("backward"):
                loss.backward()
            end("backward")
            del loss
            sizes = [weight.numel() * weight.element_size() for weight in weights]
            # AdamW on CUDA takes the roots of all second moments at once, on the CPU those of one tensor, twice.
            end("optimizer", sum(sizes) if load.cuda else 2 * max(sizes))
            del kept
    finally:
        torch.set_default_dtype(before)
    phase, peak, parts = max(phases, key=lambda entry: entry[1])
    return Estimate(peak, parts, phase, sum(p.numel() for p in model.parameters()))


def rooms(model: LanguageModel) -> dict[str, list[nn.Module]]:
    """The parts of a model in the order they run, by the names that the report shows."""

    def inside(level: nn.Module) -> list[nn.Module]:
        return list(level.children())

    backbone = model.backbone
    n_levels = len(backbone.down)
    found: dict[str, list[nn.Module]] = {"embedding": [model.embedding]}
    found |= {f"down, level {i}": inside(level) for i, level in enumerate(backbone.down)}
    found["center"] = inside(backbone.center)
    found |= {f"up, level {n_levels - 1 - i}": inside(level) for i, level in enumerate(backbone.up)}
    found["norm"] = [backbone.norm]
    return found


def _loss(model: LanguageModel, codes: torch.Tensor, ranks: bool, tracker: MemoryTracker) -> torch.Tensor:
    hidden = model.hidden_for(codes)
    # A head is no module that is called: its loss is.
    with tracker.in_room("head"):
        weight = hidden.new_full(codes.shape[:2], 1 / codes.numel())
        return model.loss(hidden, codes, weight, ranks)[0]


def _like(tracker: MemoryTracker, room: str, weights: list[nn.Parameter], count: int) -> list[torch.Tensor]:
    with tracker.in_room(room):
        return [torch.zeros_like(weight) for _ in range(count) for weight in weights]
