"""How heads start and learn: flat at first, float32 likelihoods, every parameter moved, 65,536 logits in slices."""

import math

import pytest
import torch
from small_heads import WIDTH, batch, build, each_head, each_width

from stereo_sashimi.nn.heads.head import COUPLINGS, CategoricalHeadConfig, DMLHeadConfig


@each_head
@each_width
def test_every_parameter_gets_a_gradient(config, n_channels):
    head, (hidden, codes) = config.build(WIDTH, n_channels, 256), batch(n_channels)
    hidden.requires_grad_()
    head.score(hidden, codes).log_prob.sum().backward()
    assert hidden.grad.abs().min() > 0
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("coupling", COUPLINGS)
@pytest.mark.parametrize("rows", [1, 3, 4])
def test_sliced_likelihood_equals_the_plain_one_with_its_gradients(coupling, rows, monkeypatch):
    head, (hidden, codes) = build(CategoricalHeadConfig(coupling), 2), batch(2)

    def value_and_gradients() -> list[torch.Tensor]:
        head.zero_grad()
        leaf = hidden.clone().requires_grad_()
        scored = head.score(leaf, codes, with_rank=True)
        (scored.log_prob * torch.linspace(-1, 2, 20).view(2, 5, 2)).sum().backward()
        gradients = [parameter.grad.clone() for parameter in head.parameters()]
        return [scored.log_prob.detach(), scored.rank.double(), leaf.grad, *gradients]

    plain = value_and_gradients()
    monkeypatch.setattr(type(head), "LOGITS_AT_ONCE", rows * 256 + 17)
    for expected, found in zip(plain, value_and_gradients(), strict=True):
        assert torch.allclose(expected, found, rtol=1e-4, atol=1e-5)


def test_sliced_likelihood_never_holds_the_logits_of_a_batch(monkeypatch):
    head, (hidden, codes) = build(CategoricalHeadConfig(), 2), batch(2, shape=(2, 50))
    monkeypatch.setattr(type(head), "LOGITS_AT_ONCE", 10 * 256)
    saved: list[int] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = head.score(hidden.requires_grad_(), codes).log_prob.sum()
    assert max(saved, default=0) <= 256 * WIDTH
    computed: list[int] = []
    head.channels[0].register_forward_hook(lambda module, given, result: computed.append(result.numel()))
    loss.backward()
    assert computed == [10 * 256] * 10


def correlated_codes(length: int) -> torch.Tensor:
    """Two tracks of smooth noise at 16 bit, Laplacian of std 3000 LSB, the second close to the first."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(length + 200, 2, generator=generator).cumsum(0)
    smooth = noise[200:] - noise[:-200]
    smooth = smooth / smooth.std(0)
    smooth[:, 1] = 0.95 * smooth[:, 0] + 0.05 * smooth[:, 1]
    quantile = (0.5 * (1 + torch.erf(smooth / math.sqrt(2)))).clamp(1e-6, 1 - 1e-6)
    laplacian = torch.distributions.Laplace(0.0, 3000 / math.sqrt(2)).icdf(quantile)
    return (laplacian.round().long() + 32768).clamp(0, 65535).unsqueeze(0)


@pytest.mark.parametrize("n_mixtures", [1, 4, 10])
@pytest.mark.parametrize("coupling", COUPLINGS)
def test_dml_starts_close_to_uniform(n_mixtures, coupling):
    torch.manual_seed(0)
    head = DMLHeadConfig(coupling, n_mixtures).build(64, 2, 65536)
    hidden = torch.nn.functional.layer_norm(torch.randn(1, 4000, 64), (64,))
    for codes in (torch.randint(65536, (1, 4000, 2)), correlated_codes(4000)):
        bits = -head.score(hidden, codes).log_prob.mean().item() / math.log(2)
        assert abs(bits - 16) < 0.5


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_dml_loss_falls_at_once(coupling):
    torch.manual_seed(0)
    codes = correlated_codes(401)
    x = 2 * codes / 65536 - 1
    # Random features of the previous frame at several gains: what a backbone would offer at the start.
    seen = torch.cat([torch.tanh(gain * x[:, :-1]) for gain in (1, 4, 16, 64)], dim=-1)
    hidden = torch.nn.functional.layer_norm(torch.tanh(seen @ torch.randn(8, 64)), (64,))
    codes = codes[:, 1:]
    head = DMLHeadConfig(coupling).build(64, 2, 65536)
    optimizer = torch.optim.Adam(head.parameters(), lr=4e-3)
    bits = []
    for _ in range(200):
        loss = -head.score(hidden, codes).log_prob.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        bits.append(loss.item() / math.log(2))
    assert bits[-1] < bits[0] - 2


@torch.no_grad()
def test_autocast_does_not_touch_the_likelihood():
    # In bfloat16 neighbours of 65,536 smooth logits are equal, and a tie would count as a hit.
    torch.manual_seed(0)
    head = CategoricalHeadConfig().build(8, 1, 65536)
    hidden, codes = torch.randn(1, 4, 8), torch.randint(65536, (1, 4, 1))
    plain = head.score(hidden, codes, with_rank=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = head.score(hidden, codes, with_rank=True)
    assert torch.equal(plain.log_prob, mixed.log_prob)
    assert torch.equal(plain.rank, mixed.rank)
