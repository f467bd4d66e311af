"""Exported models: what was saved comes back to the bit; whatever else is in a file is refused by name."""

import copy
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from exported_models import make, same_bits

import stereo_sashimi
from stereo_sashimi.commands.shared.runs import EXPORTED
from stereo_sashimi.models.checkpoint import load
from stereo_sashimi.models.exported import Training, read_header, save
from stereo_sashimi.models.weights import CheckpointError
from stereo_sashimi.nn.freeze import freeze
from stereo_sashimi.nn.heads.head import CategoricalHeadConfig, DMLHeadConfig
from stereo_sashimi.nn.s4 import S4Config, S4DConfig, SSMParameters


# Each pair of a head and a number of channels, and of a merge and a wiring.
@pytest.mark.parametrize(
    ("decoder", "n_channels", "layer", "merge", "unet"),
    [
        (CategoricalHeadConfig(), 1, S4Config(d_state=4), "concat", False),
        (CategoricalHeadConfig(), 2, S4DConfig(d_state=4, n_ssm=None), "none", True),
        (CategoricalHeadConfig("autoregressive"), 1, S4DConfig(d_state=4, n_ssm=None), "sum", True),
        (CategoricalHeadConfig("autoregressive"), 2, S4Config(d_state=4), "mix", False),
        (DMLHeadConfig(n_mixtures=2), 1, S4DConfig(d_state=4, n_ssm=None), "mix", True),
        (DMLHeadConfig(n_mixtures=2), 2, S4Config(d_state=4), "none", False),
        (DMLHeadConfig("autoregressive", n_mixtures=2), 1, S4Config(d_state=4), "concat", True),
        (DMLHeadConfig("autoregressive", n_mixtures=2), 2, S4DConfig(d_state=4, n_ssm=None), "sum", False),
    ],
    ids=lambda value: f"{value.kind}" if hasattr(value, "kind") else str(value),
)
def test_what_was_saved_comes_back_to_the_bit(tmp_path, decoder, n_channels, layer, merge, unet):
    model = make(n_channels, merge, decoder, layer, unet)
    loaded = load(save(model, tmp_path / "model"))
    assert loaded.config == model.config
    assert not loaded.training
    assert same_bits(loaded, model)


def test_the_folder_its_json_and_its_weights_all_name_the_model(model, folder):
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"] == sorted(EXPORTED)
    for path in (folder, str(folder), folder / "config.json", folder / "model.safetensors"):
        assert same_bits(load(path), model)
    (folder / "model.safetensors").rename(folder / "renamed.safetensors")
    assert same_bits(load(folder / "renamed.safetensors"), model)


def test_config_json_holds_what_the_guide_says(model, tmp_path):
    folder = save(model, tmp_path / "a" / "b", training=Training(300, 11.5, "best.ckpt"))
    data = json.loads((folder / "config.json").read_text())
    assert data == {
        "format": "stereo-sashimi model",
        "format_version": 1,
        "package_version": stereo_sashimi.__version__,
        "sha256": hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
        "model": model.config.to_plain(),
        "training": {"steps": 300, "validation_bits_per_sample": 11.5, "checkpoint": "best.ckpt"},
    }
    assert read_header(folder / "config.json").training == Training(300, 11.5, "best.ckpt")
    guide = (Path(__file__).resolve().parents[3] / "docs" / "python.md").read_text()
    for name in (*data, *data["model"], *data["model"]["spec"], *data["training"]):
        assert f"`{name}`" in guide or f"{name}" in guide.split("| `model` |")[1].split("\n")[0], name


def test_both_files_can_be_read_by_whom_the_umask_allows(model, tmp_path):
    before = os.umask(0o027)
    try:
        folder = save(model, tmp_path / "model")
    finally:
        os.umask(before)
    assert [path.stat().st_mode & 0o777 for path in folder.iterdir()] == [0o640, 0o640]


def test_the_precision_is_that_of_the_weights(model, tmp_path):
    double = copy.deepcopy(model).double()
    loaded = load(save(double, tmp_path / "double"))
    assert next(loaded.parameters()).dtype == torch.float64
    assert same_bits(loaded, double)
    assert next(load(save(model, tmp_path / "single")).parameters()).dtype == torch.float32


def test_the_remainder_of_c_survives_so_double_is_as_exact_as_before(model, tmp_path):
    ssm = [module for module in model.modules() if isinstance(module, SSMParameters)]
    for module in ssm:
        module.C_remainder = 1e-9 * torch.rand_like(module.C, dtype=torch.float64)
    loaded = load(save(model, tmp_path / "model"))
    kept = [module for module in loaded.modules() if isinstance(module, SSMParameters)]
    for before, after in zip(ssm, kept, strict=True):
        assert torch.equal(before.C_remainder, after.C_remainder)
        assert after.C_remainder.dtype == torch.float64
    assert same_bits(loaded, model)
    exact, again = copy.deepcopy(model).double(), loaded.double()
    assert same_bits(again, exact)
    for module in again.modules():
        if isinstance(module, SSMParameters):
            module.C_remainder = None
    assert not same_bits(again, exact)


def test_shared_and_strided_weights_are_saved(model, tmp_path):
    model.embedding.tables[1].weight = model.embedding.tables[0].weight
    linear = model.head.channels[0]
    linear.weight = torch.nn.Parameter(linear.weight.detach().t().contiguous().t())
    assert not linear.weight.is_contiguous()
    loaded = load(save(model, tmp_path / "model"))
    assert torch.equal(loaded.embedding.tables[0].weight, loaded.embedding.tables[1].weight)
    # A matrix product may round otherwise for another memory layout, so layouts are made alike to compare bits.
    plain = copy.deepcopy(model)
    plain.head.channels[0].weight = torch.nn.Parameter(linear.weight.detach().contiguous())
    assert same_bits(loaded, plain)
    # The caller's model is as it was.
    assert model.embedding.tables[1].weight is model.embedding.tables[0].weight
    assert not linear.weight.is_contiguous()


def test_loading_leaves_the_random_numbers_alone(folder):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load(folder)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model: model.half(), r"cannot be exported.*float16.*must be float32, or all float64"),
        (lambda model: freeze(model), r"cannot be exported.*is missing"),
        (
            lambda model: model.register_buffer("extra", torch.zeros(1)) or model,
            r"cannot be exported.*extra is left over",
        ),
    ],
    ids=["half", "frozen", "another"],
)
def test_a_model_that_could_not_be_loaded_is_not_saved(model, tmp_path, change, message):
    with pytest.raises(CheckpointError, match=message):
        save(change(model), tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_is_refused(model, folder):
    (folder / "notes.txt").write_text("mine")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    other = make(n_channels=1)
    with pytest.raises(CheckpointError, match=r"model is not empty.*out=<folder>.*overwrite=true"):
        save(other, folder)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert same_bits(load(save(other, folder, overwrite=True)), other)
    assert (folder / "notes.txt").read_text() == "mine"
    assert len(list(folder.iterdir())) == 3


def test_what_a_killed_export_left_is_no_obstacle(model, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / ".model.safetensors.part").write_bytes(b"half")
    folder = save(model, tmp_path / "model")
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert same_bits(load(folder), model)


@pytest.mark.parametrize("failing", ["model.safetensors", "config.json"])
def test_a_full_disk_leaves_no_half_model(model, folder, tmp_path, monkeypatch, failing):
    def no_space(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    before = {path: path.read_bytes() for path in folder.iterdir()}
    place = (safetensors.torch, "save_file") if failing == "model.safetensors" else (Path, "write_text")
    with monkeypatch.context() as patch:
        patch.setattr(*place, no_space)
        with pytest.raises(CheckpointError, match=r"cannot write the model \(.*No space left"):
            save(make(n_channels=1), folder, overwrite=True)
        with pytest.raises(CheckpointError, match="cannot write"):
            save(model, tmp_path / "new")
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert not (tmp_path / "new").exists()


def test_a_stop_between_the_two_files_is_found(folder, monkeypatch):
    """Old description, new weights: the names are exchanged one after the other."""
    replace = os.replace

    def stop_at_config(source: Path, target: Path) -> None:
        if target.name == "config.json":
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", stop_at_config)
    with pytest.raises(KeyboardInterrupt):
        save(make(n_channels=1), folder, overwrite=True)
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not the file .*config\.json was written with"):
        load(folder)


def test_what_registers_more_than_its_weights_loads_all_the_same(tmp_path, monkeypatch):
    model = make()
    folder = save(model, tmp_path / "model")
    monkeypatch.setattr("stereo_sashimi.models.weights.SLACK", -(10**9))
    loaded, codes = load(folder), torch.zeros(1, 5, model.spec.n_channels, dtype=torch.int64)
    assert torch.equal(loaded.log_prob(codes), model.log_prob(codes))
