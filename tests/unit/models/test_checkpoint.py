"""Reading checkpoints: what was saved comes back, and any other file is refused by name, never executed."""

import contextlib
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import stereo_sashimi
from stereo_sashimi.models.checkpoint import CheckpointError, load, read
from stereo_sashimi.models.language_model import LanguageModel, LanguageModelConfig
from stereo_sashimi.models.sashimi import SashimiConfig
from stereo_sashimi.nn.embedding import EmbeddingConfig
from stereo_sashimi.nn.heads import DMLHeadConfig
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
    with pytest.raises(CheckpointError, match=r"no checkpoint .*absent\.ckpt.*checkpoint=<run>"):
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
    with pytest.raises(CheckpointError, match=r"object\.ckpt needs pickled code and is refused"):
        read(path)


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
