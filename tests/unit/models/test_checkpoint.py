"""Reading checkpoints: what was saved comes back, and any other file is refused by name, never executed."""

import contextlib
import copy
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import stereo_sashimi
from stereo_sashimi.models.checkpoint import CheckpointError, load, read
from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.models.language_model_config import LanguageModelConfig
from stereo_sashimi.models.sashimi import SashimiConfig
from stereo_sashimi.nn.embedding import EmbeddingConfig
from stereo_sashimi.nn.heads.head import DMLHeadConfig
from stereo_sashimi.nn.s4 import S4DConfig
from stereo_sashimi.spec import AudioSpec


@pytest.fixture
def model() -> LanguageModel:
    backbone = SashimiConfig(d_model=4, n_layers=1, pool=(2,), layer=S4DConfig(d_state=4))
    decoder = DMLHeadConfig("autoregressive", n_mixtures=2)
    return LanguageModelConfig(AudioSpec(44100, 2, 8), EmbeddingConfig(4), backbone, decoder).build()


def content_of(model: LanguageModel) -> dict:
    """The keys of a Lightning checkpoint that matter here."""
    weights = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    return {"hyper_parameters": {"model": model.config.to_plain()}, "state_dict": weights, "epoch": 3}


@pytest.fixture
def saved(model, tmp_path) -> Path:
    path = tmp_path / "last.ckpt"
    torch.save(content_of(model), path)
    return path


def test_what_was_saved_comes_back(model, saved):
    loaded = load(saved)
    assert not loaded.training
    assert loaded.config == model.config
    assert loaded.spec == AudioSpec(44100, 2, 8)
    codes = torch.randint(256, (2, 9, 2))
    assert torch.equal(loaded.log_prob(codes), model.eval().log_prob(codes))
    assert torch.equal(
        stereo_sashimi.load(str(saved), backend="reference").head.channels[0].weight, model.head.channels[0].weight
    )


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


class Harmless:
    """A class of this file: not code of a checkpoint either."""


def test_an_instance_of_any_class_is_refused(model, tmp_path):
    path = tmp_path / "object.ckpt"
    torch.save(content_of(model) | {"extra": Harmless()}, path)
    with pytest.raises(CheckpointError, match=r"object\.ckpt needs pickled code and is refused") as caught:
        read(path)
    assert "test_checkpoint.Harmless" in str(caught.value)
    # torch's own message advises to run the code.
    assert "weights_only" not in str(caught.value)


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
    data = bytearray(saved.read_bytes())
    data[int(len(data) * place)] ^= byte
    path = saved.with_name("flipped.ckpt")
    path.write_bytes(data)
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


def test_a_description_with_an_unknown_field_is_refused(model, tmp_path):
    path, content = tmp_path / "newer.ckpt", content_of(model)
    content["hyper_parameters"]["model"]["model"]["_target_"] = "os.system"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"newer\.ckpt: its model description.*model\._target_"):
        load(path)


@pytest.mark.parametrize("change", ["missing", "left over", "shape"])
def test_weights_that_do_not_fit_the_description_are_refused(model, tmp_path, change):
    path, content = tmp_path / "other.ckpt", content_of(model)
    weights = content["state_dict"]
    if change == "missing":
        weights.pop("model.backbone.norm.weight")
    elif change == "left over":
        weights["model.extra"] = torch.zeros(1)
    else:
        weights["model.backbone.norm.weight"] = torch.zeros(3)
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"other\.ckpt: weights and model description disagree"):
        load(path)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("model", "n_layers"), torch.tensor(1), r"model\.n_layers must be an integer; got Tensor"),
        (("model", "n_layers"), 10**500, r"model\.n_layers must be an integer; got an integer of 1661 bits"),
        (("model", "dropout"), float("nan"), r"model\.dropout must be a finite number; got nan"),
        (("spec", "sample_rate"), "44100", r"spec\.sample_rate must be an integer; got '44100'"),
        (("encoder", 3), 4, r"Unknown key encoder\.3"),
    ],
    ids=["tensor", "huge", "nan", "text", "number"],
)
def test_a_description_of_wrong_values_is_refused_by_name(model, tmp_path, place, value, message):
    path, content = tmp_path / "edited.ckpt", content_of(model)
    content["hyper_parameters"]["model"][place[0]][place[1]] = value
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=rf"edited\.ckpt: its model description is not valid: {message}"):
        load(path)


@pytest.mark.parametrize(
    "value",
    [
        torch.zeros(()).expand(10**6, 10**6),
        torch.zeros(8, device="meta"),
        torch.zeros(8).to_sparse(),
        [0.0] * 8,
        None,
    ],
    ids=["expanded", "meta", "sparse", "list", "none"],
)
def test_a_weight_without_values_of_its_own_is_refused(model, tmp_path, value):
    """An expanded tensor takes four bytes in a file and, with its shape, terabytes in memory."""
    path, content = tmp_path / "bomb.ckpt", content_of(model)
    content["state_dict"]["model.backbone.norm.weight"] = value
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"bomb\.ckpt.*norm\.weight is no tensor with values of its own"):
        load(path)


def test_the_precision_is_that_of_the_weights(model, tmp_path):
    path = tmp_path / "double.ckpt"
    torch.save(content_of(model.double()), path)
    loaded = load(path)
    assert next(loaded.parameters()).dtype == torch.float64
    codes = torch.randint(256, (1, 9, 2))
    assert torch.equal(loaded.log_prob(codes), model.eval().log_prob(codes))
