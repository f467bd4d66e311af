"""Sampler: how the next frame is drawn, and the random numbers of each stream. The model's side is in `stream.py`."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor


@dataclass(frozen=True)
class Sampler:
    """What to draw from the model's distributions.

    - `temperature`: 0, or at least 1e-6; 1 draws from the model itself, 0 takes the most likely code.
    - `top_k`, `top_p`: restrict a categorical head to its most likely codes; top_p in (0, 1].
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise ValueError(f"temperature must be at least 0; got {self.temperature}.")
        # Dividing by less overflows; 0 is what it would tend to.
        if self.temperature != 0 and not 1e-6 <= self.temperature < float("inf"):
            raise ValueError(f"temperature must be 0, or at least 1e-6 and finite; got {self.temperature}.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must lie in (0, 1]; got {self.top_p}.")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, or null; got {self.top_k}.")


class UniformStreams:
    """Uniform numbers in [0, 1), one generator a stream, always on the CPU and in float64.

    So what a stream draws depends on its own seed only: not on the batch around it and not on the device.
    """

    BLOCK_FRAMES = 1024

    def __init__(self, seeds: Sequence[int], n_channels: int, n_uniforms: int, device: torch.device) -> None:
        for seed in seeds:
            if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
                raise ValueError(f"seed must be an integer of at least 0 and below 2**63; got {seed!r}.")
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.shape, self.device = (self.BLOCK_FRAMES, n_channels, n_uniforms), device
        self.block: Tensor | None = None
        self.used = 0

    def next_frame(self) -> Float64[Tensor, "batch 1 channels n_uniforms"]:
        """The numbers for one frame of every stream."""
        if self.block is None or self.used == self.BLOCK_FRAMES:
            rows = [torch.rand(self.shape, generator=g, dtype=torch.float64) for g in self.generators]
            self.block, self.used = torch.stack(rows).to(self.device), 0
        self.used += 1
        return self.block[:, self.used - 1 : self.used]
