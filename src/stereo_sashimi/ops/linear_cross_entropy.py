"""A linear map to many codes, its cross-entropy and both gradients in one walk over slices of rows.

With 65,536 codes the logits of one stereo batch take gigabytes. Here a slice of them lives in two buffers that every
slice uses again, and the gradient is made from the softmax while it is there: three matrix products for a training
step instead of the four of a recomputation, and nothing of size rows x codes is kept. The price is that the weight of
each row in the loss must be known beforehand. `nn/heads/categorical_head.py` has the readable `score` that this equals.

With p = softmax(W h + b) and the loss -sum_r g_r log p_r[true_r]:
  d loss / d logits_r = g_r (p_r - onehot(true_r))
The idea of gradients in the forward pass is that of Hsu et al. 2024, "Liger Kernel", section 3.2.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

LOGITS_AT_ONCE = 2**24  # 64 MiB in float32


def linear_cross_entropy(
    features: Float[Tensor, "rows width"],
    weight: Float[Tensor, "codes width"],
    bias: Float[Tensor, " codes"],
    true: Int[Tensor, " rows"],
    row_weight: Float[Tensor, " rows"],
    with_rank: bool,
) -> tuple[Float[Tensor, ""], Float[Tensor, " rows"], Int[Tensor, " rows"] | None]:
    """The loss -sum(row_weight * log_prob), with gradients for `features`, `weight` and `bias`.

    - `true`: the codes, 0 to codes - 1. `row_weight`: what each row counts, without gradient.

    Returns the loss, and without gradients the log-probabilities (nats) and, if asked, the ranks: int64, how many
    codes were strictly more likely. Computes in the precision of `weight`.
    """
    loss, log_prob, rank = _LinearCrossEntropy.apply(
        features.to(weight.dtype), weight, bias, true, row_weight.to(weight.dtype), with_rank
    )
    return loss, log_prob, rank if with_rank else None


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, true: Tensor, row_weight: Tensor, with_rank: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        n_rows, n_codes = len(features), len(weight)
        slice_rows = min(max(1, LOGITS_AT_ONCE // n_codes), max(1, n_rows))
        log_prob, rank = features.new_empty(n_rows), true.new_empty(n_rows if with_rank else 0)
        wanted = ctx.needs_input_grad
        trained = zip((features, weight, bias), wanted[:3], strict=True)
        grads = [torch.zeros_like(x) if need else None for x, need in trained]
        of_features, of_weight, of_bias = grads
        logits_buffer, mass_buffer = (features.new_empty(slice_rows, n_codes) for _ in range(2))
        for start in range(0, n_rows, slice_rows):
            rows = slice(start, min(start + slice_rows, n_rows))
            size = rows.stop - start
            logits, mass = logits_buffer[:size], mass_buffer[:size]
            torch.addmm(bias, features[rows], weight.t(), out=logits)
            true_logit = logits.gather(-1, true[rows].unsqueeze(-1))
            if with_rank:
                # As numbers: summing booleans is slow, and counts up to 2**24 are exact.
                rank[rows] = torch.gt(logits, true_logit, out=mass).sum(-1).long()
            torch.softmax(logits, dim=-1, out=mass)
            # The largest mass is at least 1 / codes, so its logarithm is exact where that of the true one is not.
            log_prob[rows] = true_logit.squeeze(-1) - logits.amax(-1) + mass.amax(-1).log()
            # What this slice adds to the gradients.
            scale = row_weight[rows].unsqueeze(-1)
            if of_features is not None:
                of_features[rows] = scale * (mass @ weight - weight[true[rows]])
            if of_weight is not None:
                scaled = scale * features[rows]
                of_weight.addmm_(mass.t(), scaled)
                of_weight.index_add_(0, true[rows], scaled, alpha=-1)
            if of_bias is not None:
                of_bias.addmv_(mass.t(), row_weight[rows])
                of_bias.index_add_(0, true[rows], row_weight[rows], alpha=-1)
        ctx.save_for_backward(*grads)
        ctx.mark_non_differentiable(log_prob, rank)
        return -(row_weight * log_prob).sum(), log_prob, rank

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, *unused: Tensor) -> tuple[Tensor | None, ...]:
        scaled = (None if grad is None else grad * grad_loss for grad in ctx.saved_tensors)
        return *scaled, None, None, None
