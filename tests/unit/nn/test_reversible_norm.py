"""Reversible instance normalisation: its equations by hand, the way back, and why no language model takes it."""

import copy

import pytest
import torch

from stereo_sashimi.nn import (
    ReversibleInstanceNorm1dInput,
    ReversibleInstanceNorm1dOutput,
    ReversibleNormInputConfig,
    ReversibleNormOutputConfig,
)

REASON = r"=revnorm cannot be part of a language model: .* sees the future and no likelihood.*\n.*Use {}={}"


def pair(d_input: int) -> tuple[ReversibleInstanceNorm1dInput, ReversibleInstanceNorm1dOutput]:
    norm = ReversibleInstanceNorm1dInput(d_input).double()
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, -2, d_input))
        norm.bias.copy_(torch.linspace(-1, 3, d_input))
    return norm, ReversibleInstanceNorm1dOutput(norm)


def signal(batch: int, length: int, channels: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    scale = torch.rand(batch, 1, channels, dtype=torch.float64, generator=generator) * 30
    return scale * (7 + torch.randn(batch, length, channels, dtype=torch.float64, generator=generator))


def test_two_frames_by_hand():
    norm = ReversibleInstanceNorm1dInput(1, eps=3.0).double()
    with torch.no_grad():
        norm.weight.fill_(4.0)
        norm.bias.fill_(1.0)
    # Mean 5, variance 1, std sqrt(1 + 3) = 2: 4 * (+-1) / 2 + 1.
    y, statistics = norm(torch.tensor([[[4.0], [6.0]]], dtype=torch.float64))
    assert y.flatten().tolist() == [-1.0, 3.0]
    assert (statistics.mean.item(), statistics.std.item()) == (5.0, 2.0)
    again = ReversibleInstanceNorm1dOutput(norm)(y, statistics)
    assert again.flatten().tolist() == [4.0, 6.0]


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_every_instance_and_channel_has_its_own_statistics(channels):
    x = signal(3, 50, channels)
    y, statistics = ReversibleInstanceNorm1dInput(channels).double()(x)
    torch.testing.assert_close(y.mean(1), torch.zeros(3, channels, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(y.var(1, correction=0), torch.ones(3, channels, dtype=torch.float64), atol=1e-2, rtol=0)
    torch.testing.assert_close(statistics.mean, x.mean(1, keepdim=True))
    alone, _ = ReversibleInstanceNorm1dInput(channels).double()(x[1:2])
    torch.testing.assert_close(alone, y[1:2])


@pytest.mark.parametrize("channels", [1, 2])
def test_the_output_undoes_the_input_with_the_same_parameters(channels):
    norm, undo = copy.deepcopy(torch.nn.ModuleList(pair(channels)))
    assert undo.weight is norm.weight
    assert undo.bias is norm.bias
    x = signal(2, 40, channels)
    y, statistics = norm(x)
    torch.testing.assert_close(undo(y, statistics), x, atol=1e-10, rtol=1e-10)
    # A forecast has its own length.
    assert undo(y[:, :7], statistics).shape == (2, 7, channels)


def test_nothing_is_kept_between_calls():
    norm, undo = pair(2)
    before = copy.deepcopy(norm.__dict__["_parameters"]), set(vars(norm)), set(vars(undo))
    first, statistics = norm(signal(1, 30, 2))
    norm(signal(4, 9, 2) * 100)
    torch.testing.assert_close(undo(first, statistics), signal(1, 30, 2), atol=1e-10, rtol=1e-10)
    assert before[1:] == (set(vars(norm)), set(vars(undo)))
    assert all(torch.equal(before[0][name], p) for name, p in norm.named_parameters())
    assert list(norm.buffers()) == []


def test_silence_and_one_frame():
    norm, undo = pair(2)
    for x in (torch.zeros(1, 9, 2, dtype=torch.float64), signal(1, 1, 2)):
        y, statistics = norm(x)
        torch.testing.assert_close(y, norm.bias.expand_as(x).detach(), atol=1e-9, rtol=0)
        torch.testing.assert_close(undo(y, statistics), x)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ReversibleInstanceNorm1dInput(0), "d_input of at least 1 channel; got 0"),
        (lambda: ReversibleInstanceNorm1dInput(2, eps=0.0), "eps above 0.*got 0"),
        (lambda: ReversibleNormInputConfig(eps=-1.0), "eps above 0.*got -1"),
        (lambda: ReversibleInstanceNorm1dInput(2)(torch.zeros(1, 5, 1)), r"\(batch, length, 2\).*got \(1, 5, 1\)"),
        (lambda: ReversibleInstanceNorm1dInput(2)(torch.zeros(1, 0, 2)), r"1 frame or more; got \(1, 0, 2\)"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_language_model_is_refused_with_the_reason():
    with pytest.raises(ValueError, match="encoder" + REASON.format("encoder", "embedding")):
        ReversibleNormInputConfig().build(2, 256)
    with pytest.raises(ValueError, match="decoder" + REASON.format("decoder", "categorical")):
        ReversibleNormOutputConfig().build(8, 2, 256)
