"""Reading checkpoints: what was saved comes back, and any other file is refused by name, never executed."""

import contextlib
import copy
import math
import pickle
from pathlib import Path

import pytest
import torch
from exported_models import drop, flipped, put
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import stereo_sashimi
from stereo_sashimi.models.checkpoint import CheckpointError, load, read
from stereo_sashimi.models.language_model import LanguageModel


def content_of(model: LanguageModel) -> dict:
    """The keys of a Lightning checkpoint that matter here."""
    weights = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    return {"hyper_parameters": {"model": model.config.to_plain()}, "state_dict": weights, "epoch": 3}


@pytest.fixture
def saved(model, tmp_path) -> Path:
    path = tmp_path / "last.ckpt"
    torch.save(content_of(model), path)
    return path


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_was_saved_comes_back_in_its_precision(model, tmp_path, dtype):
    path = tmp_path / "last.ckpt"
    torch.save(content_of(model.to(dtype)), path)
    loaded = load(path)
    assert not loaded.training
    assert loaded.config == model.config
    assert next(loaded.parameters()).dtype == dtype
    codes = torch.randint(256, (2, 9, 2))
    assert torch.equal(loaded.log_prob(codes), model.log_prob(codes))
    slow = stereo_sashimi.load(str(path), backend="reference")
    assert torch.equal(slow.head.channels[0].weight, model.head.channels[0].weight)


def test_a_missing_file(tmp_path):
    with pytest.raises(CheckpointError, match=r"no checkpoint .*absent\.ckpt.*checkpoint=runs/<run>"):
        load(tmp_path / "absent.ckpt")


class Attack:
    """Unpickling this would write a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


@pytest.mark.parametrize("plain_pickle", [False, True])
def test_pickled_code_is_refused_and_not_run(model, tmp_path, plain_pickle):
    path, target = tmp_path / "evil.ckpt", tmp_path / "executed"
    content = content_of(model) | {"callbacks": Attack(target)}
    if plain_pickle:
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"evil\.ckpt"):
        read(path)
    assert not target.exists()
    torch.save(content_of(model) | {"extra": Harmless()}, path)
    with pytest.raises(CheckpointError, match=r"evil\.ckpt needs pickled code and is refused") as caught:
        read(path)
    assert "test_checkpoint.Harmless" in str(caught.value)
    # torch's own message advises to run the code.
    assert "weights_only" not in str(caught.value)


class Harmless:
    """A class of this file: not code of a checkpoint either."""


@given(share=st.floats(0, 0.999))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_truncated_file_is_refused(saved, share):
    data = saved.read_bytes()
    path = saved.with_name("cut.ckpt")
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(CheckpointError, match=r"cut\.ckpt"):
        read(path)


@given(data=st.binary(max_size=64))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_other_bytes_are_refused(tmp_path, data):
    path = tmp_path / "noise.ckpt"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"noise\.ckpt"):
        read(path)


@given(place=st.floats(0, 0.999), byte=st.integers(1, 255))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_flipped_byte_gives_a_model_or_a_named_error(saved, place, byte):
    path = saved.with_name("flipped.ckpt")
    path.write_bytes(flipped(saved.read_bytes(), place, byte))
    # A flip in the padding between tensors changes nothing; any other error than this one fails the test.
    with contextlib.suppress(CheckpointError):
        assert isinstance(load(path), LanguageModel)


@pytest.mark.parametrize(
    "foreign",
    [
        {},
        {"state_dict": {"weight": torch.zeros(3)}},
        {"hyper_parameters": {"model": {}}},
        {"hyper_parameters": {"n_layers": 8}, "state_dict": {}},
        {"hyper_parameters": 3, "state_dict": {}},
        [1, 2],
        torch.zeros(3),
    ],
    ids=["empty", "weights", "no-weights", "other-model", "number", "list", "tensor"],
)
def test_a_checkpoint_of_another_program_is_refused(tmp_path, foreign):
    path = tmp_path / "foreign.ckpt"
    torch.save(foreign, path)
    with pytest.raises(CheckpointError, match=r"foreign\.ckpt is not a stereo-sashimi checkpoint.*interop"):
        read(path)


ORIGINAL = {
    "hyper_parameters": {"model": {"_name_": "sashimi", "d_model": 64}, "encoder": "embedding"},
    "state_dict": {"model.norm.weight": torch.zeros(64), "encoder.0.weight": torch.zeros(256, 64)},
    "pytorch-lightning_version": "1.5.10",
}


@pytest.mark.parametrize("with_pickle", [False, True])
def test_a_checkpoint_of_the_original_repository_is_sent_to_interop(tmp_path, with_pickle):
    path = tmp_path / "original.ckpt"
    torch.save(ORIGINAL | ({"config": Harmless()} if with_pickle else {}), path)
    with pytest.raises(CheckpointError, match=r"original\.ckpt.*interop\.load_lightning.*interop\.load_reference"):
        load(path)


def test_further_entries_of_a_checkpoint_are_not_read(model, tmp_path):
    """Lightning's weight averaging keeps the raw weights beside the averaged ones, which are the model."""
    path, content = tmp_path / "averaged.ckpt", content_of(model)
    raw = {name: tensor + 1 for name, tensor in content["state_dict"].items()}
    torch.save(content | {"current_model_state": raw, "averaging_state": {"n_averaged": torch.tensor(3)}}, path)
    codes = torch.randint(256, (1, 9, 2))
    assert torch.equal(load(path).log_prob(codes), model.eval().log_prob(codes))


@pytest.mark.parametrize("name", ["best", "last"])
def test_a_run_folder_gives_its_best_or_last_weights(model, tmp_path, name):
    (tmp_path / "checkpoints").mkdir()
    other = copy.deepcopy(model)
    torch.nn.init.zeros_(other.backbone.norm.weight)
    torch.save(content_of(other), tmp_path / "checkpoints" / "last.ckpt")
    if name == "best":
        torch.save(content_of(model), tmp_path / "checkpoints" / "best.ckpt")
    assert bool(load(tmp_path).backbone.norm.weight.any()) == (name == "best")


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"holds no model: no config\.json, .*best\.ckpt, .*last\.ckpt.* run"):
        load(tmp_path)


DESCRIPTION, NORM = ("hyper_parameters", "model"), ("state_dict", "model.backbone.norm.weight")
FIELDS = (*DESCRIPTION, "model")
INVALID = r": its model description is not valid: "
# An expanded tensor takes four bytes in a file and, with its shape, terabytes in memory.
WITHOUT_VALUES = {
    "expanded": torch.zeros(()).expand(10**6, 10**6),
    "meta": torch.zeros(8, device="meta"),
    "sparse": torch.zeros(8).to_sparse(),
    "list": [0.0] * 8,
    "none": None,
}
DAMAGE = {
    "unknown": (put(*FIELDS, "_target_", value="os.system"), r": its model description.*model\._target_"),
    "tensor": (
        put(*FIELDS, "n_layers", value=torch.tensor(1)),
        INVALID + r"model\.n_layers must be an integer; got Tensor",
    ),
    "huge": (
        put(*FIELDS, "n_layers", value=10**500),
        INVALID + r"model\.n_layers must be an integer; got an integer of 1661 bits",
    ),
    "nan": (put(*FIELDS, "dropout", value=math.nan), INVALID + r"model\.dropout must be a finite number; got nan"),
    "number": (put(*DESCRIPTION, "encoder", 3, value=4), INVALID + r"Unknown key encoder\.3"),
    "missing": (drop(*NORM), ": weights and model description disagree"),
    "left over": (put("state_dict", "model.extra", value=torch.zeros(1)), ": weights and model description disagree"),
    "shape": (put(*NORM, value=torch.zeros(3)), ": weights and model description disagree"),
    **{
        name: (put(*NORM, value=value), r".*norm\.weight is no tensor with values of its own")
        for name, value in WITHOUT_VALUES.items()
    },
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_description_or_weight_is_refused_by_name(model, tmp_path, name):
    path, content = tmp_path / "edited.ckpt", content_of(model)
    change, message = DAMAGE[name]
    change(content)
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=rf"edited\.ckpt{message}"):
        load(path)
