"""Exported models that are damaged, edited or incomplete are refused by name, whatever was done to them."""

import contextlib
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from exported_models import drop, flipped, put
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from limits import memory_of_at_most
from stereo_sashimi.models import exported as export
from stereo_sashimi.models.checkpoint import load
from stereo_sashimi.models.exported import save
from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.models.weights import MAX_PAD_LEN, CheckpointError

many = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(place=st.floats(0, 0.999), byte=st.integers(1, 255))
@many
def test_a_flipped_byte_of_the_weights_is_found(folder, place, byte):
    path = folder / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(flipped(data, place, byte))
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not the file .*SHA-256 differs"):
        load(folder)
    path.write_bytes(data)


@given(share=st.floats(0, 0.999))
@many
def test_a_truncated_file_is_found(folder, share):
    for path in (folder / "model.safetensors", folder / "config.json"):
        data = path.read_bytes()
        # The last byte of config.json is a line end, and no loss.
        path.write_bytes(data[: int((len(data) - 1) * share)])
        with pytest.raises(CheckpointError, match=path.name):
            load(folder)
        path.write_bytes(data)


@given(place=st.floats(0, 0.999), byte=st.integers(1, 255))
@many
def test_a_flipped_byte_of_the_description_gives_a_model_or_a_named_error(folder, place, byte):
    path = folder / "config.json"
    data = path.read_bytes()
    path.write_bytes(flipped(data, place, byte))
    # A digit of `steps` may change unseen; any other error than this one fails the test.
    with contextlib.suppress(CheckpointError):
        assert isinstance(load(folder), LanguageModel)
    path.write_bytes(data)


def edited(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    path = folder / "config.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    return folder


def test_a_list_of_tensors_without_bound_is_refused_before_it_is_read(folder, monkeypatch):
    path = folder / "model.safetensors"
    monkeypatch.setattr(export, "_MAX_HEADER_BYTES", 1000)
    monkeypatch.setattr(safetensors.torch, "load_file", lambda _: pytest.fail("it was read"))
    path.write_bytes((10**9).to_bytes(8, "little") + b" " * 2000)
    edited(folder, lambda data: data.update(sha256=hashlib.sha256(path.read_bytes()).hexdigest()))
    with pytest.raises(CheckpointError, match="list of weights alone has 1000000000 bytes"):
        load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("_target_", value="os.system"), r"Unknown key config\._target_"),
        (put("model", "model", "_target_", value="os.system"), r"Unknown key model\._target_"),
        (put("model", "model", "layer", "_target_", value="x"), r"Unknown key model\.layer\._target_"),
        (put("training", "_target_", value="os.system"), r"Unknown key config\.training\._target_"),
        (put("model", "spec", "bit", value=8), r"Unknown key spec\.bit\. Did you mean spec\.bits\?"),
        (drop("model"), r"config lacks the field 'model'"),
        (drop("model", "spec"), r"must hold exactly: spec, encoder"),
        (drop("model", "spec", "bits"), r"spec lacks the field 'bits'"),
        (put("model", "spec", value=None), r"spec must be a mapping of fields; got NoneType"),
        (put("model", "spec", "n_channels", value=True), r"spec\.n_channels must be an integer; got True"),
        (put("model", "model", "dropout", value=1e999), r"damaged or not JSON \(Infinity is no JSON number"),
        (put("model", "model", "dropout", value=float("nan")), r"damaged or not JSON \(NaN is no JSON number"),
        (put("model", "model", "layer", "kind", value=["s4"]), r"model\.layer\.kind must be one of s4, s4d; got list"),
        (put("model", "pad_len", value=-1), r"pad_len must be 0 or more"),
        (put("model", "pad_len", value=MAX_PAD_LEN + 1), r"pad_len must be at most"),
        (put("format", value="other"), r"its 'format' must be 'stereo-sashimi model'"),
        (put("format_version", value=2), r"format_version 2; stereo-sashimi .* reads up to 1.*Update"),
        (put("sha256", value="0" * 64), r"SHA-256 differs"),
        # Sizes that no memory holds, and sizes that are only not those of the weights.
        (put("model", "encoder", "d_model", value=10**15), r"cannot be made|disagree"),
        (put("model", "encoder", "d_model", value=65536), r"disagree: .* has shape"),
        (put("model", "model", "n_layers", value=10**9), r"n_layers on all levels must be at most 1000"),
        (put("model", "model", "n_layers", value=2), r"disagree: .* is missing \(and \d+ more\)"),
        (put("model", "model", "pool", value=[2] * 100_000), r"n_layers on all levels must be at most 1000"),
        (put("model", "model", "expand", value=10**12), r"cannot be made|disagree"),
        (put("model", "model", "layer", "d_state", value=10**8), r"d_state must be at most 1024; got 100000000"),
        (put("model", "decoder", "n_mixtures", value=10**12), r"cannot be made|disagree"),
        (
            put("model", "spec", "bits", value=16),
            r"disagree: .*tables.* has shape \(256, 4\), described is \(65536, 4\)",
        ),
        (put("model", "spec", "n_channels", value=1), r"disagree: .* is left over"),
    ],
)
def test_an_edited_description_is_refused_by_name(folder, change, message):
    with pytest.raises(CheckpointError, match=message) as caught:
        load(edited(folder, change))
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[1]", "'format' must be"),
        ('{"format": "stereo-sashimi model", "format": "x"}', "a field occurs twice"),
        ('{"format": "stereo-sashimi model", "format_version": -Infinity}', "-Infinity is no JSON number"),
        ('{"format": "stereo-sashimi model", "format_version": ' + "9" * 5000 + "}", "not JSON"),
        (" " * (export.MAX_CONFIG_BYTES + 1), "no description of a model"),
        ('{"architectures": ["Other"], "model_type": "other"}', "'format' must be"),
        ("\xff\xfe", "not JSON"),
    ],
    ids=range(9),
)
def test_other_text_is_refused(folder, text, message):
    (folder / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(CheckpointError, match=rf"config\.json.*{message}"):
        load(folder)


def test_a_number_too_large_for_json_is_refused(folder):
    text = (folder / "config.json").read_text()
    assert '"dropout": 0.0' in text
    (folder / "config.json").write_text(text.replace('"dropout": 0.0', '"dropout": 1e999'))
    with pytest.raises(CheckpointError, match=r"config\.json.*model\.dropout must be a finite number; got inf"):
        load(folder)


@pytest.mark.parametrize("size", [2000, 30_000, 10**6, 10**9])
@pytest.mark.parametrize("unet", [False, True])
@pytest.mark.parametrize(
    "keys",
    [("encoder", "d_model"), ("model", "expand"), ("model", "ff"), ("model", "pool"), ("decoder", "n_mixtures")],
    ids=" ".join,
)
def test_sizes_that_the_file_has_no_weights_for_take_no_memory(folder, keys, unet, size):
    edited(folder, put("model", "model", "unet", value=unet))
    edited(folder, put("model", *keys, value=[size] if keys[1] == "pool" else size))
    with memory_of_at_most(2**29), pytest.raises(CheckpointError, match=r"cannot be made|disagree"):
        load(folder)


def with_weights(folder: Path, content: bytes) -> Path:
    """Other weights whose SHA-256 is right: edited on purpose."""
    (folder / "model.safetensors").write_bytes(content)
    return edited(folder, put("sha256", value=hashlib.sha256(content).hexdigest()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("backbone.norm.weight"), r"backbone\.norm\.weight is missing"),
        (lambda w: w.update(extra=torch.zeros(1)), r"extra is left over"),
        (lambda w: w.update({"backbone.norm.weight": torch.zeros(3)}), r"norm\.weight has shape \(3,\), described is"),
        (
            lambda w: w.update({"backbone.norm.weight": torch.zeros(8).half()}),
            r"norm\.weight has another type.*float16",
        ),
        (lambda w: w.update({"backbone.norm.weight": torch.zeros(8).double()}), r"has another type.*float32, float64"),
        (lambda w: w.update({"head.C_remainder": torch.zeros(8)}), r"head\.C_remainder is left over"),
        (
            lambda w: w.update({"backbone.center.0.layer.ssm.C_remainder": torch.zeros(1)}),
            r"C_remainder has shape \(1,\)",
        ),
    ],
)
def test_weights_of_another_model_are_refused_by_name(model, folder, change, message):
    weights = dict(model.state_dict())
    change(weights)
    with pytest.raises(
        CheckpointError, match=rf"model\.safetensors: weights and model description disagree: .*{message}"
    ):
        load(with_weights(folder, safetensors.torch.save(weights)))


@pytest.mark.parametrize("content", [b"", b"\0" * 7, b"\xff" * 64, b"PK\x03\x04" + b"x" * 60], ids=len)
def test_weights_that_are_no_safetensors_are_refused(folder, content):
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged or not a safetensors file"):
        load(with_weights(folder, content))


def test_one_file_without_the_other_is_refused(folder, tmp_path):
    lonely = tmp_path / "other.safetensors"
    lonely.write_bytes((folder / "model.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match=r"There is no .*config\.json.*folder of config\.json and"):
        load(lonely)
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json has no model\.safetensors beside it"):
        load(folder)
    with pytest.raises(CheckpointError, match=r"There is no .*absent\.json"):
        load(tmp_path / "absent.json")
    with pytest.raises(CheckpointError, match=r"There is no .*absent"):
        load(tmp_path / "absent.safetensors")


@pytest.mark.parametrize("files", [("config.json", "model.safetensors"), ("model.safetensors",)])
def test_overwrite_replaces_exported_models_only(model, tmp_path, files):
    for name in files:
        (tmp_path / name).write_text('{"architectures": ["Bert"]}')
    with pytest.raises(CheckpointError, match="exported model"):
        save(model, tmp_path, overwrite=True)
    assert all((tmp_path / name).read_text() == '{"architectures": ["Bert"]}' for name in files)
