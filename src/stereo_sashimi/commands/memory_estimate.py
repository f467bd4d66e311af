"""The memory of a training step, part by part, without data and without the memory itself. `memory.py` is the command.

The step runs under PyTorch's FakeTensorMode, where tensors have shapes but no storage, inside a mode that counts every
tensor. What a kernel allocates inside one op (cuFFT's workspace, MKL's buffers) is not seen.
"""

import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from stereo_sashimi.experts.adaptive import N_SAID, AdaptiveExperts
from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.models.language_model_config import LanguageModelConfig
from stereo_sashimi.models.sashimi import Sashimi

# The types of the weights, and of what autocast turns products into.
PRECISIONS: dict[str, tuple[torch.dtype, torch.dtype | None]] = {
    "32-true": (torch.float32, None),
    "64-true": (torch.float64, None),
    "bf16-mixed": (torch.float32, torch.bfloat16),
    "16-mixed": (torch.float32, torch.float16),
}
ELSEWHERE = "elsewhere"


@dataclass(frozen=True)
class Load:
    """What a training step is made of. `compile` has no part in it: fused blocks take as much as others, or less.

    Args:
        batch_size, frames: clips in this process, and the length of each.
        precision: of Lightning, one of PRECISIONS.
        ranks: whether accuracies are computed.
        copies: further sets of weights: gradient buckets of several processes, averaged weights.
        cuda: count as PyTorch's CUDA allocator and fused optimizers do.
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


class MemoryTracker(TorchDispatchMode):
    """Counts the bytes of all tensors that are made while it is active, by the part (`in_part`) that made them.

    `rounding` is the bytes that an allocator hands out at a time: 64 on CPUs, 512 on CUDA devices.
    `peak_phase` and `peak_parts` are `phase` and `by_part` at the moment of the `peak`.
    """

    def __init__(self, rounding: int = 64) -> None:
        super().__init__()
        self.rounding, self.current, self.peak = rounding, 0, 0
        self.phase = self.peak_phase = ""
        self.by_part: Counter[str] = Counter()
        self.peak_parts: Counter[str] = Counter()
        self._part = ELSEWHERE
        # Of each storage that is alive, by its address: no other has it meanwhile.
        self._alive: dict[int, tuple[int, str]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one op and count what it made."""
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.untyped_storage()._cdata not in self._alive:
                storage = leaf.untyped_storage()
                self._count(storage._cdata, -(-storage.nbytes() // self.rounding) * self.rounding, self._part)
                weakref.finalize(storage, self._forget, storage._cdata)
        return result

    def _count(self, key: int, size: int, part: str) -> None:
        self._alive[key] = size, part
        self.current += size
        self.by_part[part] += size
        if self.current > self.peak:
            self.peak, self.peak_phase, self.peak_parts = self.current, self.phase, self.by_part.copy()

    def _forget(self, key: int) -> int:
        size, part = self._alive.pop(key)
        self.current -= size
        self.by_part[part] -= size
        return size

    def move(self, tensor: Tensor, part: str) -> None:
        """Count a tensor to another part from now on."""
        key = tensor.untyped_storage()._cdata
        self._count(key, self._forget(key), part)

    @contextmanager
    def in_part(self, name: str) -> Iterator[None]:
        """What is made inside belongs to the part `name`."""
        before, self._part = self._part, name
        try:
            yield
        finally:
            self._part = before

    @contextmanager
    def in_parts_of(self, model: LanguageModel) -> Iterator[None]:
        """What a forward pass inside makes belongs to embedding, a level of the backbone, or norm."""
        parts: list[tuple[str, nn.Module]] = []
        if model.embedding is not None and isinstance(model.backbone, Sashimi):
            parts = [("embedding", model.embedding), ("norm", model.backbone.norm)]
        for step in model.backbone.schedule():
            parts.append((step.side if step.side == "center" else f"{step.side}, level {step.level}", step.module))

        def leave(*_: Any) -> None:
            self._part = ELSEWHERE

        hooks = [module.register_forward_hook(leave) for _, module in parts]
        for name, module in parts:

            def enter(*_: Any, name: str = name) -> None:
                self._part = name

            hooks.append(module.register_forward_pre_hook(enter))
        yield
        for hook in hooks:
            hook.remove()


class _SilentExperts(AdaptiveExperts):
    """What they say has a size, but there are no codes to read."""

    def predict(self, codes: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        return torch.zeros(*codes.shape, N_SAID), state


def estimate(config: LanguageModelConfig, load: Load) -> Estimate:
    """The peak of a training step of `config` under `load`.

    The step is the second one: gradients of the step before are alive during the forward pass, as Lightning clears
    them behind it, and AdamW has its moments.

    Raises:
        ValueError: for a precision or backend that is unknown here.
    """
    if load.precision not in PRECISIONS:
        raise ValueError(f"the estimate knows trainer.precision {', '.join(PRECISIONS)}; got {load.precision!r}.")
    if load.backend in ("keops", "triton"):
        raise ValueError(
            f"the estimate cannot look into backend={load.backend}; use backend=auto, krylov or reference."
        )
    dtype, cast = PRECISIONS[load.precision]
    before = torch.get_default_dtype()
    # Lightning's precisions set the default as well.
    torch.set_default_dtype(dtype)
    try:
        with FakeTensorMode(), MemoryTracker(512 if load.cuda else 64) as tracker:
            n_parameters = _step(config, load, cast, tracker)
    finally:
        torch.set_default_dtype(before)
    parts = {name: size for name, size in tracker.peak_parts.items() if size}
    return Estimate(tracker.peak, parts, tracker.peak_phase, n_parameters)


def _step(config: LanguageModelConfig, load: Load, cast: torch.dtype | None, tracker: MemoryTracker) -> int:
    """Build the model and run a training step; returns the number of parameters."""
    tracker.phase = "building the model"
    with tracker.in_part("parameters"):
        model = config.build(load.backend, load.activation_checkpointing)
    if config.experts is not None:
        model.experts = _SilentExperts(config.experts, config.spec.n_channels, config.spec.n_levels)
    tracker.phase = "forward"
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    # The lists keep the tensors alive.
    with tracker.in_part("moments"):
        moments = [torch.zeros_like(weight) for _ in range(2) for weight in weights]
    with tracker.in_part("copies of weights"):
        copies = [torch.zeros_like(weight) for _ in range(load.copies) for weight in weights]
    with tracker.in_part("batch"):
        codes = torch.zeros(load.batch_size, load.frames, config.spec.n_channels, dtype=torch.int64)
    with tracker.in_part("gradients"):
        for weight in weights:
            weight.grad = torch.zeros_like(weight)
            weight.register_post_accumulate_grad_hook(lambda weight: tracker.move(weight.grad, "gradients"))
    with nullcontext() if cast is None else torch.autocast("cpu", dtype=cast):
        with tracker.in_parts_of(model):
            hidden = model.hidden_for(codes)
        with tracker.in_part("head"):
            frame_weight = hidden.new_full(codes.shape[:2], 1 / codes.numel())
            loss = model.loss(hidden, codes, frame_weight, load.ranks)[0]
    del hidden, frame_weight
    tracker.phase = "backward"
    model.zero_grad()
    with tracker.in_part("backward"):
        loss.backward()
    del loss
    tracker.phase = "optimizer"
    # AdamW on CUDA takes the roots of all second moments at once, on the CPU those of one tensor, twice.
    largest = max(weights, key=lambda weight: weight.numel() * weight.element_size())
    with tracker.in_part("optimizer"):
        roots = [torch.zeros_like(weight) for weight in (weights if load.cuda else [largest, largest])]
    del moments, copies, roots
    return sum(weight.numel() for weight in model.parameters())
