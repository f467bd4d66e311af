"""The carried state: segments of a track are the track in one pass, but for the gradient; rows keep to themselves."""

import pytest
import torch

from stereo_sashimi.data.dataset import Batch
from stereo_sashimi.models.language_model_config import LanguageModelConfig
from stereo_sashimi.models.sashimi import SashimiState
from stereo_sashimi.nn import CategoricalHeadConfig, DMLHeadConfig, S4DConfig
from stereo_sashimi.schema import to_plain
from stereo_sashimi.tasks import AutoregressiveTask
from stereo_sashimi.tasks.optim import AdamWConfig
from stereo_sashimi.tasks.tbptt import Carried, Carry, check_segments
from tiny_config import tiny_config

SEGMENT = 8
EXACT = {"rtol": 0.0, "atol": 1e-9}


def config(channels=2, merge="concat", head=None, **backbone) -> LanguageModelConfig:
    head = head or CategoricalHeadConfig("independent" if merge == "none" else "autoregressive")
    return tiny_config(channels, merge, head, **backbone)


def task_of(model: LanguageModelConfig | None = None, **options) -> AutoregressiveTask:
    torch.manual_seed(0)
    model = model or config()
    options = {"carry_state": True} | options
    return AutoregressiveTask(model.to_plain(), to_plain(AdamWConfig()), **options).double()


def tracks_of(*n_segments: int, channels: int = 2) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(256, (n * SEGMENT, channels), generator=generator) for n in n_segments]


def walk(rows: list[list[torch.Tensor]]) -> list[Batch]:
    """Batches in which row i plays the tracks of `rows[i]` one after another; all rows are equally long."""
    lanes = []
    clip = 0
    for tracks in rows:
        lane = []
        for track in tracks:
            parts = track.split(SEGMENT)
            lane += [(part, clip + i, i == 0) for i, part in enumerate(parts)]
            clip += len(parts) + 1
        lanes.append(lane)
    batches = []
    for step in zip(*lanes, strict=True):
        lengths = torch.tensor([len(part) for part, _, _ in step])
        codes = torch.full((len(step), int(lengths.max()), step[0][0].shape[1]), 128)
        for row, (part, _, _) in zip(codes, step, strict=True):
            row[: len(part)] = part
        clips, first = (torch.tensor([entry[i] for entry in step]) for i in (1, 2))
        batches.append(Batch(codes, lengths, clips, first))
    return batches


MODELS = {
    "mono": config(1),
    "stereo": config(2),
    "sum": config(2, "sum"),
    "none": config(2, "none"),
    "dml": config(2, head=DMLHeadConfig(coupling="autoregressive")),
    "unet": config(2, unet=True, layer=S4DConfig(d_state=4)),
}


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_segments_of_tracks_are_the_tracks_in_one_pass(name):
    task = task_of(MODELS[name])
    channels = task.spec.n_channels
    a, b, c, d = tracks_of(3, 2, 1, 4, channels=channels)
    found: list[list[torch.Tensor]] = [[], []]
    total = frames = 0.0
    for batch in walk([[a, b], [c, d]]):
        loss = task._loss(batch, "train")
        total, frames = total + float(loss) * batch.codes.numel(), frames + batch.codes.numel()
    task.carry = Carry()
    for batch in walk([[a, b], [c, d]]):
        for row, log_prob in zip(
            found, task.model.score(task.carry.hidden(task.model, batch), batch.codes).log_prob, strict=True
        ):
            row.append(log_prob)
    whole = [torch.cat([task.model.log_prob(t[None])[0] for t in lane]) for lane in ((a, b), (c, d))]
    for row, expected in zip(found, whole, strict=True):
        torch.testing.assert_close(torch.cat(row), expected, **EXACT)
    assert total / frames == pytest.approx(-float(torch.cat(whole).mean()), abs=1e-9)
    # What the state is worth: without it the second segment comes out otherwise.
    alone = task.model.log_prob(a[None, SEGMENT : 2 * SEGMENT])[0]
    assert float((alone - found[0][1]).abs().max()) > 1e-3


@torch.no_grad()
def test_padding_does_not_reach_the_track_after_it():
    a, b, c = tracks_of(2, 2, 3)
    short = c[: SEGMENT + 3]
    task = task_of()
    batches = walk([[a, b], [short, b]])
    assert batches[1].lengths.tolist() == [SEGMENT, 3]
    hidden = [task.carry.hidden(task.model, batch) for batch in batches]
    alone = task_of()
    expected = torch.cat([alone.carry.hidden(alone.model, batch) for batch in walk([[b]])], dim=1)
    for row in range(2):
        torch.testing.assert_close(torch.cat(hidden[2:], dim=1)[row], expected[0], **EXACT)


@torch.no_grad()
def test_a_batch_of_nothing_but_short_ends_leaves_no_phase_behind():
    # 3 frames: not a multiple of the pools.
    (a, b) = (t[: SEGMENT + 3] for t in tracks_of(2, 2))
    c, d = tracks_of(1, 1)
    task = task_of()
    batches = walk([[a, c], [b, d]])
    assert batches[1].codes.shape[1] == 3
    hidden = [task.carry.hidden(task.model, batch) for batch in batches]
    torch.testing.assert_close(hidden[2], task.model.hidden_for(torch.stack([c, d])), **EXACT)
    # Going on from there is no case of padding: segments do not fit the pools.
    other = task_of()
    other.carry.hidden(other.model, batches[0])
    other.carry.hidden(other.model, batches[1])
    with pytest.raises(ValueError, match=r"2 rows were carried with phase 3, and 2 come.*dataset\.sample_len"):
        other.carry.hidden(
            other.model, batches[2]._replace(clips=batches[1].clips + 1, first=torch.tensor([False] * 2))
        )


def test_the_gradient_of_a_segment_ends_where_it_begins():
    task = task_of()
    (a,) = tracks_of(3)
    batches = walk([[a]])
    with torch.no_grad():
        task._loss(batches[0], "train")
    before = task.carry.value
    tensors = [*(x for x in before.state.layers if x is not None), before.codes]
    task._loss(batches[1], "train").backward()
    carried = [p.grad.clone() for p in task.parameters()]
    # The same from a state that was never part of a graph.
    for p in task.parameters():
        p.grad = None
    state = SashimiState(0, tuple(x if x is None else x.clone() for x in before.state.layers))
    hidden, _ = task.model.hidden_after(before.codes, batches[1].codes, state)
    (-task.model.score(hidden, batches[1].codes).log_prob.mean()).backward()
    torch.testing.assert_close(carried, [p.grad for p in task.parameters()], **EXACT)
    assert not any(x.requires_grad for x in tensors)


def test_nothing_of_a_graph_or_a_batch_is_kept():
    task = task_of()
    sizes = []
    for batch in walk([tracks_of(6)]):
        task._loss(batch, "train").backward()
        value = task.carry.value
        tensors = [*(x for x in value.state.layers if x is not None), value.codes, value.clips, value.intact]
        assert all(x.grad_fn is None and not x.requires_grad for x in tensors)
        # Views would keep what they are views of.
        sizes.append(sum(x.untyped_storage().nbytes() for x in tensors))
        assert sizes[-1] == sum(x.numel() * x.element_size() for x in tensors)
    assert len(set(sizes)) == 1
    assert set(task.state_dict()) == set(task_of(carry_state=False).state_dict())


def test_a_state_that_is_not_finite_ends_with_its_segment():
    a, b = tracks_of(3, 3)
    batches = walk([[a], [b]])
    task, sound = task_of(), task_of()
    with torch.no_grad():
        for t in (task, sound):
            t.carry.hidden(t.model, batches[0])
        # As a step leaves it that was made with weights that overflow.
        value = task.carry.value
        layers = [x if x is None else x.clone() for x in value.state.layers]
        for layer in layers:
            if layer is not None and layer.numel():
                layer[0] = torch.nan
        broken = SashimiState(0, tuple(layers))
        intact = task.model.finite_rows(broken, 2)
        assert intact.tolist() == [False, True]
        task.carry.value = value._replace(state=broken, intact=intact)
        found, expected = (t.carry.hidden(t.model, batches[1]) for t in (task, sound))
        assert found.isfinite().all()
        torch.testing.assert_close(found[1], expected[1], **EXACT)
        torch.testing.assert_close(found[0], task.model.hidden_for(batches[1].codes)[0], **EXACT)
        assert task.carry.value.intact.all()


@torch.no_grad()
@pytest.mark.parametrize("context", [0, 3])
def test_context_len_holds_for_the_start_of_a_track(context):
    a, b = tracks_of(2, 2)
    task = task_of(context_len=context, frames_per_batch=2 * SEGMENT)
    for batch in walk([[a], [b[: SEGMENT + 5]]]):
        loss = task._loss(batch, "train")
        valid = int(batch.lengths.sum()) - (2 * context if batch.first[0] else 0)
        assert int(task.meter("train").count[0]) == valid
        mean = float(task.meter("train").ratios()["loss"])
        assert float(loss) == pytest.approx(mean * valid / (2 * SEGMENT), rel=1e-6)
        task.meter("train").reset()
    # Validation takes clips one by one.
    task._loss(batch, "val")
    assert int(task.meter("val").count[0]) == int((batch.lengths - context).sum())


@torch.no_grad()
def test_validation_is_stateless_and_leaves_the_carried_state_alone():
    (a,) = tracks_of(3)
    task = task_of()
    batches = walk([[a]])
    task._loss(batches[0], "train")
    before = task.carry.value
    for split in ("val", "test"):
        loss = float(task._loss(batches[1], split))
        assert loss == pytest.approx(-float(task.model.log_prob(batches[1].codes).mean()), abs=1e-12)
    assert task.carry.value is before


@torch.no_grad()
@pytest.mark.parametrize("index", [1, 3], ids=["repeated", "left out"])
def test_batches_that_do_not_go_on_are_refused_before_the_step(index):
    task, batches = task_of(), walk([tracks_of(4)])
    optimizer = task.configure_optimizers()
    for batch in batches[:2]:
        task._loss(batch, "train")
    task.on_before_optimizer_step(optimizer)
    task._loss(batches[index], "train")
    task._loss(batches[(index + 1) % 4], "train")
    with pytest.raises(ValueError, match=rf"clips \[1\] are followed by \[{index}\]\.\n.*carry_state=True"):
        task.on_before_optimizer_step(optimizer)


@torch.no_grad()
def test_another_training_may_have_other_rows():
    task, (a, b) = task_of(), tracks_of(2, 2)
    for batch in (walk([[a]])[0], walk([[a], [b]])[0]):
        hidden = task.carry.hidden(task.model, batch)
        task.carry.check()
    torch.testing.assert_close(hidden, task.model.hidden_for(torch.stack([a, b])[:, :SEGMENT]), **EXACT)
    with pytest.raises(ValueError, match=r"2 rows were carried with phase 0, and 1 come.*loader\.batch_size"):
        task.carry.hidden(task.model, walk([[a]])[1])


def test_a_loader_that_does_not_tell_where_tracks_begin_is_refused():
    batch = walk([tracks_of(1)])[0]
    with pytest.raises(ValueError, match=r"Batch\.first.*AudioDataModule\(carry_state=True\)"):
        task_of()._loss(batch._replace(first=None), "train")


@torch.no_grad()
def test_what_is_carried_goes_through_a_checkpoint(tmp_path):
    (a,) = tracks_of(3)
    task, other = task_of(), task_of()
    batches = walk([[a]])
    task._loss(batches[0], "train")
    torch.save(task.carry.value.to_plain(), tmp_path / "carried.pt")
    plain = torch.load(tmp_path / "carried.pt", weights_only=True)
    other.carry.restore(Carried.from_plain(plain, torch.device("cpu")))
    assert torch.equal(task.carry.hidden(task.model, batches[1]), other.carry.hidden(other.model, batches[1]))


@pytest.mark.parametrize(
    ("sample_len", "stride", "pad_len", "message"),
    [
        (100, 16, 0, r"multiple of 16, the product of model\.pool; got 100\. Set dataset\.sample_len=96 or 112"),
        (5, 16, 0, r"got 5\. Set dataset\.sample_len=16,"),
        (96, 16, 2, r"dataset\.pad_len=null; got 2"),
    ],
)
def test_segments_that_cannot_be_joined_are_refused(sample_len, stride, pad_len, message):
    with pytest.raises(ValueError, match=message):
        check_segments(sample_len, stride, pad_len)
    check_segments(96, 16, 0)
