"""Padding, context_len and pad_len: a padded batch says about each clip what the clip alone says, gradients included.

Sequences are convolved with lengths that depend on the padding, so in float64 numbers agree to 1e-9, not to the bit.
"""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stereo_sashimi.data.dataset import Batch, collate
from stereo_sashimi.nn import CategoricalHeadConfig, DMLHeadConfig
from stereo_sashimi.schema import to_plain
from stereo_sashimi.tasks import AutoregressiveTask
from stereo_sashimi.tasks.optim import AdamWConfig
from tiny_config import tiny_config

HEADS = {
    "categorical": CategoricalHeadConfig("autoregressive"),
    "dml": DMLHeadConfig("autoregressive", n_mixtures=3),
    "separate": CategoricalHeadConfig(),
}
METRICS = ("bpb", "accuracy", "accuracy@5")
EXACT = {"rtol": 1e-9, "atol": 1e-9}


def make(channels: int, head: str, context_len: int = 0, pad_len: int = 0) -> AutoregressiveTask:
    torch.manual_seed(0)
    config = tiny_config(channels, "none" if head == "separate" else "concat", HEADS[head], pad_len=pad_len)
    task = AutoregressiveTask(config.to_plain(), to_plain(AdamWConfig()), metrics=METRICS, context_len=context_len)
    return task.double().eval()


def clips_of(lengths: list[int], channels: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(sum(lengths))
    return [torch.randint(256, (length, channels), generator=generator) for length in lengths]


def batch_of(clips: list[Tensor]) -> Batch:
    return collate([(clip, index) for index, clip in enumerate(clips)], start_code=128)


def totals(task: AutoregressiveTask, batches: list[Batch]) -> dict[str, Tensor]:
    with torch.no_grad():
        for batch in batches:
            task._loss(batch, "val")
    numbers = task.meter("val").compute()
    task.meter("val").reset()
    return numbers


def summed_gradients(
    task: AutoregressiveTask, batches: list[Batch], context_len: int
) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients times the frames that they are means over, summed over batches."""
    task.zero_grad()
    total = torch.zeros((), dtype=torch.float64)
    for batch in batches:
        frames = int((batch.lengths - context_len).clamp_min(0).sum())
        total = total + task._loss(batch, "train") * frames
    total.backward()
    task.meter("train").reset()
    return float(total.detach()), {name: p.grad.clone() for name, p in task.named_parameters() if p.grad is not None}


# Each head with each number of channels, and each of both with each context and padding.
@pytest.mark.parametrize(
    ("channels", "head", "context_len", "pad_len"),
    [
        *((1, "categorical", 0, 0), (2, "categorical", 7, 0), (1, "categorical", 5, 3)),
        *((2, "dml", 0, 0), (1, "dml", 7, 0), (2, "dml", 5, 3)),
        *((1, "separate", 0, 0), (2, "separate", 7, 0), (1, "separate", 5, 3)),
    ],
)
def test_a_padded_batch_is_its_clips(channels, head, context_len, pad_len):
    task, clips = make(channels, head, context_len, pad_len), clips_of([23, 5, 1, 16], channels)
    padded, alone = [batch_of(clips)], [batch_of([clip]) for clip in clips]
    assert padded[0].codes.shape == (4, 23, channels)
    with torch.no_grad():
        for row, clip in zip(task(padded[0].codes), clips, strict=True):
            torch.testing.assert_close(row[: len(clip)], task(clip[None])[0], **EXACT)
    numbers, expected = totals(task, padded), totals(task, alone)
    assert set(numbers) == set(expected)
    assert {"loss", "bits_per_sample", *METRICS} <= set(numbers)
    for name, value in expected.items():
        torch.testing.assert_close(numbers[name], value, **EXACT, msg=lambda text, name=name: f"{name}: {text}")

    loss, gradients = summed_gradients(task, padded, context_len)
    loss_alone, gradients_alone = summed_gradients(task, alone, context_len)
    assert loss == pytest.approx(loss_alone, rel=1e-9)
    assert set(gradients) == set(gradients_alone) == {name for name, _ in task.named_parameters()}
    for name, gradient in gradients_alone.items():
        torch.testing.assert_close(gradients[name], gradient, **EXACT)


@pytest.mark.parametrize(("channels", "head"), [(1, "categorical"), (2, "dml"), (2, "separate")])
def test_what_stands_in_the_padding_does_not_matter(channels, head):
    task, clips = make(channels, head, context_len=2), clips_of([17, 6, 11], channels)
    batch = batch_of(clips)
    codes = batch.codes.clone()
    for row, length in zip(codes, batch.lengths, strict=True):
        row[length:] = 255
    other = batch._replace(codes=codes)
    assert not torch.equal(codes, batch.codes)
    for name, value in totals(task, [batch]).items():
        torch.testing.assert_close(totals(task, [other])[name], value, **EXACT)
    (_, ours), (_, theirs) = summed_gradients(task, [batch], 2), summed_gradients(task, [other], 2)
    for name, gradient in ours.items():
        torch.testing.assert_close(theirs[name], gradient, **EXACT)


@settings(max_examples=15, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 19), min_size=1, max_size=4),
    context=st.integers(0, 18),
    pad=st.integers(0, 6),
    case=st.sampled_from([(1, "dml"), (2, "categorical")]),
)
def test_any_lengths_context_and_padding(lengths, context, pad, case):
    channels, head = case
    task, clips = make(channels, head, context, pad), clips_of(lengths, channels)
    # By hand: each clip alone behind its start codes, the frames from context_len on.
    frames = []
    with torch.no_grad():
        for clip in clips:
            start = torch.full((1, 1 + pad, channels), 128)
            hidden, _ = task.model(torch.cat([start, clip[None, :-1]], dim=1))
            frames.append(task.model.score(hidden[:, pad:], clip[None]).log_prob[0, context:])
    nats = -torch.cat(frames)
    if not len(nats):
        # Every clip ends inside the context: nothing to learn, and no gradient that is not 0.
        loss, gradients = summed_gradients(task, [batch_of(clips)], context)
        assert loss == 0
        assert all(not gradient.any() for gradient in gradients.values())
        with pytest.raises(ValueError, match=r"no clip of this split is longer than dataset\.context_len"):
            totals(task, [batch_of(clips)])
        return
    numbers = totals(task, [batch_of(clips)])
    assert float(numbers["loss"]) == pytest.approx(float(nats.mean()), rel=1e-9)
    assert float(numbers["bits_per_sample"]) == pytest.approx(float(nats.mean()) / math.log(2), rel=1e-9)
    assert float(task._loss(batch_of(clips), "test").detach()) == pytest.approx(float(nats.mean()), rel=1e-9)
    assert task.meter("test").count.tolist() == [len(nats)] * channels
