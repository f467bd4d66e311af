"""Likelihood: bits and accuracies of scored codes, totals over totals, per channel and pooled."""

import re
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torchmetrics import Metric

from stereo_sashimi.spec import LN2, bits_per_byte

NAMES = ("bpb", "bits_per_sample", "accuracy", "accuracy@k (k = 1, 2, ..)")


def check_metrics(names: Sequence[str]) -> list[int]:
    """The k of each accuracy@k among `names`. Raises ValueError for a name that is not a metric."""
    ks = []
    for name in names:
        match = re.fullmatch(r"accuracy(?:@(\d+))?", name)
        if match is None and name not in ("bpb", "bits_per_sample"):
            raise ValueError(f"task.metrics has no {name!r}; allowed: {', '.join(NAMES)}.")
        if match is not None:
            ks.append(int(match[1] or 1))
    if any(k < 1 for k in ks):
        raise ValueError("task.metrics: accuracy@k needs k of at least 1.")
    return ks


class Likelihood(Metric):
    """Sums of negative log-probabilities and hits over everything it was shown, in float64.

    `compute` pools over channels; with more than one channel each is also given as "<metric>/<channel>".

    Args:
        channel_names: One name a channel.
        bits: Bits of one code, for bits per byte.
        metrics: Which numbers `compute` adds to "loss" (nats per sample) and "bits_per_sample".
        sync_on_compute: False counts this process only.
    """

    full_state_update = False
    nats: Tensor
    count: Tensor
    hits: Tensor

    def __init__(
        self, channel_names: Sequence[str], bits: int, metrics: Sequence[str], *, sync_on_compute: bool = True
    ) -> None:
        super().__init__(sync_on_compute=sync_on_compute)
        self.channel_names, self.bits, self.metrics = list(channel_names), bits, list(metrics)
        self.ks = check_metrics(metrics)
        channels = len(self.channel_names)
        self.add_state("nats", torch.zeros(channels, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(channels, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("hits", torch.zeros(len(self.ks), channels, dtype=torch.float64), dist_reduce_fx="sum")

    @property
    def needs_rank(self) -> bool:
        """Whether accuracies are wanted."""
        return bool(self.ks)

    def update(
        self,
        log_prob: Float[Tensor, "batch length channels"],
        mask: Bool[Tensor, "batch length"],
        rank: Int[Tensor, "batch length channels"] | None = None,
    ) -> None:
        """Add a batch: log-probabilities in nats, which frames count, and the ranks if `needs_rank`."""
        valid = mask.unsqueeze(-1)
        # Not in place: after a validation the states may be inference tensors.
        self.nats = self.nats + torch.where(valid, -log_prob.double(), 0.0).sum((0, 1))
        self.count = self.count + mask.sum()
        if self.ks:
            if rank is None:
                raise ValueError("Likelihood was made for accuracies and needs the ranks.")
            self.hits = self.hits + torch.stack([((rank < k) & valid).sum((0, 1)) for k in self.ks])

    def compute(self) -> dict[str, Tensor]:
        """The numbers so far. Raises ValueError if nothing was counted."""
        if not bool((self.count > 0).all()):
            raise ValueError("No sample was scored: no clip of this split is longer than dataset.context_len.")
        return self.ratios()

    def ratios(self) -> dict[str, Tensor]:
        """As `compute`, of this process alone and NaN if nothing was counted: nobody waits for the device."""
        out = self._ratios(self.nats.sum(), self.hits.sum(-1), self.count.sum(), "")
        if len(self.channel_names) > 1:
            for c, name in enumerate(self.channel_names):
                out |= self._ratios(self.nats[c], self.hits[:, c], self.count[c], f"/{name}")
        return out

    def _ratios(self, nats: Tensor, hits: Tensor, count: Tensor, suffix: str) -> dict[str, Tensor]:
        bits = nats / count / LN2
        out = {f"loss{suffix}": nats / count, f"bits_per_sample{suffix}": bits}
        if "bpb" in self.metrics:
            out[f"bpb{suffix}"] = bits * bits_per_byte(1.0, self.bits)
        names = [name for name in self.metrics if name.startswith("accuracy")]
        return out | {f"{name}{suffix}": hit / count for name, hit in zip(names, hits, strict=True)}
