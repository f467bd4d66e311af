"""Likelihood: totals over totals, masks, units, accuracies counted by hand, names of metrics."""

import math

import pytest
import torch

from stereo_sashimi.metrics.likelihood import Likelihood, check_metrics

STEREO = ("left", "right")


def everywhere(log_prob: torch.Tensor) -> torch.Tensor:
    return torch.ones(log_prob.shape[:2], dtype=torch.bool)


def test_uneven_batches_are_totals_over_totals_and_reset_forgets():
    metric = Likelihood(("mono",), 8, [])
    for _ in range(2):
        metric.reset()
        for frames, nats in ((9, 2.0), (1, 12.0)):
            metric.update(torch.full((1, frames, 1), -nats), torch.ones(1, frames, dtype=torch.bool))
        out = metric.compute()
        assert out["loss"].item() == pytest.approx(3.0)  # a mean of batch means would be 7
        assert set(out) == {"loss", "bits_per_sample"}


def test_neither_the_split_into_batches_nor_the_axis_of_channels_matters():
    log_prob, mask = -torch.rand(6, 5, 2) * 9, torch.rand(6, 5) < 0.6
    whole, parts, mono = (Likelihood(names, 16, ["bpb"]) for names in (STEREO, STEREO, ("mono",)))
    whole.update(log_prob, mask)
    for rows in (slice(0, 1), slice(1, 6)):
        parts.update(log_prob[rows], mask[rows])
    mono.update(log_prob.reshape(6, 10, 1), mask.repeat_interleave(2, dim=1))
    out = {name: value.item() for name, value in whole.compute().items()}
    for name, value in out.items():
        assert parts.compute()[name].item() == pytest.approx(value, rel=1e-12)
    assert out["bpb"] == pytest.approx(out["bits_per_sample"] * 8 / 16)
    assert out["loss"] == pytest.approx(mono.compute()["loss"].item())
    assert out["loss"] == pytest.approx((out["loss/left"] + out["loss/right"]) / 2)
    assert not any("/" in name for name in mono.compute())


def test_masked_frames_count_for_nothing_even_if_not_finite():
    metric = Likelihood(STEREO, 8, ["accuracy"])
    log_prob = torch.tensor([[[-1.0, -2.0], [-math.inf, math.nan], [-3.0, -4.0]]])
    rank = torch.tensor([[[0, 0], [0, 0], [5, 0]]])
    metric.update(log_prob, torch.tensor([[True, False, True]]), rank)
    out = {name: value.item() for name, value in metric.compute().items() if not name.startswith("bits")}
    expected = {"loss": 2.5, "loss/left": 2.0, "loss/right": 3.0}
    assert out == pytest.approx(expected | {"accuracy": 3 / 4, "accuracy/left": 1 / 2, "accuracy/right": 1})


@pytest.mark.parametrize("bits", [8, 16])
def test_units(bits):
    """The uniform distribution costs all bits of a code, and 8 bits per byte."""
    metric = Likelihood(STEREO, bits, ["bpb"])
    log_prob = torch.full((1, 3, 2), -math.log(2**bits), dtype=torch.float64)
    metric.update(log_prob, everywhere(log_prob))
    out = metric.compute()
    assert out["loss"].item() == pytest.approx(bits * math.log(2))
    for suffix in ("", "/left", "/right"):
        assert out[f"bits_per_sample{suffix}"].item() == pytest.approx(bits)
        assert out[f"bpb{suffix}"].item() == pytest.approx(8)


def test_accuracies_count_ranks_below_k():
    metric = Likelihood(("mono",), 8, ["accuracy", "accuracy@3", "bpb", "accuracy@10"])
    rank = torch.tensor([0, 1, 2, 3, 9, 10, 0, 255]).reshape(2, 4, 1)
    metric.update(torch.zeros(2, 4, 1), torch.ones(2, 4, dtype=torch.bool), rank)
    out = metric.compute()
    assert metric.needs_rank
    assert [out[f"accuracy{k}"].item() for k in ("", "@3", "@10")] == [2 / 8, 4 / 8, 6 / 8]


def test_sums_are_kept_in_float64():
    """A float32 sum stops growing at 2^24."""
    metric = Likelihood(("mono",), 8, [])
    metric.nats += 2**24
    metric.count += 2**24
    log_prob = -torch.ones(1, 1, 1)
    metric.update(log_prob, everywhere(log_prob))
    assert metric.count.item() == 2**24 + 1
    assert metric.compute()["loss"].item() == 1


def test_nothing_scored_and_nothing_ranked_are_errors():
    metric, ranked = Likelihood(("mono",), 8, []), Likelihood(("mono",), 8, ["accuracy@3"])
    metric.update(torch.zeros(1, 2, 1), torch.zeros(1, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="No sample was scored"):
        metric.compute()
    with pytest.raises(ValueError, match="ranks"):
        ranked.update(torch.zeros(1, 2, 1), torch.ones(1, 2, dtype=torch.bool))


@pytest.mark.parametrize("name", ["acc", "accuracy@", "accuracy@x", "bpb ", "", "loss", "xaccuracy@3"])
def test_unknown_names_are_refused_with_the_choices_and_k_is_at_least_one(name):
    choices = rf"task\.metrics has no {name!r}; allowed: bpb, bits_per_sample, accuracy"
    with pytest.raises(ValueError, match=choices):
        Likelihood(("mono",), 8, ["bpb", name])
    assert check_metrics(["bpb", "accuracy", "accuracy@5"]) == [1, 5]
    with pytest.raises(ValueError, match="at least 1"):
        check_metrics(["accuracy@0"])
