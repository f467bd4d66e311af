"""Checkpoint files that `load_lightning` refuses: each by name, with what to do, and nothing of them is run."""

import os
import pickle
from functools import partial
from pathlib import Path

import pytest
import torch
from lightning_files import CONFIG, before_version_4, content, hyper_parameters, save, state_dict

from stereo_sashimi.interop import load_lightning
from stereo_sashimi.interop.pickled import Remains, read_lightning
from stereo_sashimi.models.checkpoint import CheckpointError


class Attack:
    """Unpickling this would make a folder."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


class Holder:
    """An object of a class that the reader does not know."""


@pytest.mark.parametrize("place", ["hyper_parameters", "callbacks", "state_dict", "extra"])
@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_code_is_refused_by_name_and_not_run(tmp_path, place, zipped):
    path, target = tmp_path / "evil.ckpt", tmp_path / "executed"
    saved = content(state_dict(), hyper_parameters())
    saved[place] = {"a": Attack(target)}
    if zipped:
        torch.save(saved, path)
    else:
        path.write_bytes(pickle.dumps(saved))
    with pytest.raises(CheckpointError, match=r"evil\.ckpt .*(names \w+\.mkdir|no zip archive)"):
        load_lightning(path)
    assert not target.exists()
    pickle.loads(pickle.dumps(saved[place]))
    assert target.exists(), "the attack would have worked"


@pytest.mark.parametrize("thing", [Holder(), Holder, partial(print), print], ids=["object", "class", "partial", "call"])
def test_any_other_class_is_named(tmp_path, thing):
    torch.save(content(state_dict(), hyper_parameters()) | {"extra": thing}, tmp_path / "odd.ckpt")
    name = r"functools\.partial" if isinstance(thing, partial) else "print" if thing is print else "Holder"
    with pytest.raises(CheckpointError, match=rf"odd\.ckpt needs pickled code and is refused: it names .*{name}"):
        load_lightning(tmp_path / "odd.ckpt")


def test_the_list_of_safe_names_is_taken_back(tmp_path):
    path = save(tmp_path / "last.ckpt", state_dict(), hyper_parameters())
    # What torch itself adds when it is first asked stays.
    load_lightning(path)
    before = set(torch.serialization.get_safe_globals())
    load_lightning(path)
    assert set(torch.serialization.get_safe_globals()) == before
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)


def test_omegaconf_objects_become_plain_ones(tmp_path):
    read = read_lightning(save(tmp_path / "last.ckpt", state_dict(), hyper_parameters()))
    assert read["hyper_parameters"] == hyper_parameters()
    assert read["hparams_type"] is Remains
    assert read["optimizer_states"][0]["param_groups"] == [{"lr": 0.001, "betas": (0.9, 0.999)}]


def test_a_missing_a_cut_and_a_foreign_file(tmp_path):
    with pytest.raises(CheckpointError, match=r"There is no checkpoint .*absent\.ckpt"):
        load_lightning(tmp_path / "absent.ckpt")
    path = save(tmp_path / "cut.ckpt", state_dict(), hyper_parameters())
    whole = path.read_bytes()
    for share in (0.0, 0.3, 0.9, 0.999):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(CheckpointError, match=r"cut\.ckpt is (truncated|damaged)"):
            load_lightning(path)
    for foreign in ([1, 2], {"weight": torch.zeros(2)}, state_dict(), {"state_dict": torch.zeros(2)}):
        torch.save(foreign, path)
        with pytest.raises(CheckpointError, match=r"it has no state_dict.*load_reference"):
            load_lightning(path)


def test_our_own_checkpoint_is_sent_to_load(tmp_path):
    path = save(tmp_path / "ours.ckpt", {"model.backbone.norm.weight": torch.ones(2)}, None)
    with pytest.raises(CheckpointError, match=r"ours\.ckpt: .*stereo-sashimi itself; .*stereo_sashimi\.load"):
        load_lightning(path)


@pytest.mark.parametrize("part", ["encoder.", "decoder."])
def test_a_backbone_alone_is_sent_to_load_reference(tmp_path, part):
    weights = {key: value for key, value in state_dict().items() if not key.startswith(part)}
    with pytest.raises(CheckpointError, match=rf"body\.ckpt: its state_dict has no {part}.*load_reference"):
        load_lightning(save(tmp_path / "body.ckpt", weights, hyper_parameters()))


@pytest.mark.parametrize("settings", [None, {}, {"dataset": {"bits": 8}}])
def test_without_a_description_a_config_is_asked_for(tmp_path, settings):
    path = save(tmp_path / "bare.ckpt", state_dict(), settings)
    with pytest.raises(CheckpointError, match=r"bare\.ckpt: it has no hyper_parameters.*config=\{'dt_transform'"):
        load_lightning(path)
    assert load_lightning(path, {"quantization": "linear"}).spec.quantization == "linear"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"n_layers": 8}, r"n_layers=8, but its tensors are of n_layers=1"),
        ({"d_model": 64}, r"d_model=64, .* d_model=8"),
        ({"expand": 3}, r"expand=3, .* expand=2"),
        ({"ff": 4}, r"ff=4, .* ff=2"),
        ({"pool": [4, 2]}, r"pool=\[4, 2\], .* pool=\[4, 4\]"),
        ({"layer": {"d_state": 32}}, r"d_state=32, .* d_state=64"),
        ({"layer": {"n_ssm": None}}, r"n_ssm=None, .* n_ssm=1"),
        ({"layer": {"mode": "diag"}}, r"mode='diag', .* mode='dplr'"),
        ({"_name_": "unet"}, r"type='lm_unet_modular', .* type='lm_sashimi_modular'"),
    ],
)
def test_a_description_that_disagrees_is_named_with_both_values(tmp_path, model, message):
    path = save(tmp_path / "mixed.ckpt", state_dict(), hyper_parameters(**model))
    with pytest.raises(CheckpointError, match=rf"mixed\.ckpt: its hyper_parameters says? .*{message}"):
        load_lightning(path)
    # Said by hand, the right value of the same file is taken.
    load_lightning(path, CONFIG | {"mode": "dplr"})


def test_bits_and_config_are_checked_too(tmp_path):
    settings = hyper_parameters()
    settings["dataset"]["bits"] = 16
    path = save(tmp_path / "bits.ckpt", state_dict(), settings)
    with pytest.raises(CheckpointError, match=r"bits=16, but its tensors are of bits=8"):
        load_lightning(path)
    with pytest.raises(CheckpointError, match=r"config says n_layers=3, but its tensors are of n_layers=1"):
        load_lightning(path, CONFIG | {"n_layers": 3})


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"_name_": "samplernn"}, r"model\._name_ is 'samplernn'; only sashimi, sashimi_standalone, unet"),
        ({"prenorm": False}, r"model\.prenorm is False; only True"),
        ({"layer": {"activation": "relu"}}, r"model\.layer\.activation is 'relu'; only 'gelu'"),
        ({"layer": {"bandlimit": 0.5}}, r"model\.layer\.bandlimit is 0\.5"),
        ({"layer": {"dt_transform": "relu"}}, r"dt_transform"),
        ({"layer": {"real_transform": "relu"}}, r"real_transform must be one of exp, none, softplus, sigmoid"),
        ({"layer": {"dt_transform": "${oc.env:HOME}"}}, r"leave model\.layer\.dt_transform open: '\$\{oc\.env:HOME\}'"),
    ],
)
def test_what_has_no_counterpart_is_named(tmp_path, model, message):
    path = save(tmp_path / "other.ckpt", state_dict(), hyper_parameters(**model))
    with pytest.raises(CheckpointError, match=rf"other\.ckpt: .*{message}"):
        load_lightning(path)


def test_what_the_file_leaves_open_can_be_given(tmp_path):
    settings = hyper_parameters(layer={"dt_transform": "${oc.env:HOME}"}, n_layers="${nowhere}")
    path = save(tmp_path / "open.ckpt", state_dict(), settings)
    assert load_lightning(path, {"dt_transform": "softplus", "n_layers": 1}).config.model.n_layers == 1


@pytest.mark.parametrize("model", [{"_name_": ["sashimi"]}, {"pool": 4}, {"layer": {"init": 3, "dt_transform": [1]}}])
def test_values_of_other_types_are_refused(tmp_path, model):
    with pytest.raises(CheckpointError, match=r"types\.ckpt: "):
        load_lightning(save(tmp_path / "types.ckpt", state_dict(), hyper_parameters(**model)))


def test_an_interleaved_stereo_model_of_the_fork_is_refused(tmp_path):
    settings = hyper_parameters()
    settings["dataset"] |= {"is_stereo": True, "interleaving_strategy": "temporal"}
    with pytest.raises(CheckpointError, match=r"dataset\.is_stereo is True.*as one sequence"):
        load_lightning(save(tmp_path / "stereo.ckpt", state_dict(), settings))


def changed(**shapes):
    weights = state_dict()
    for key, tensor in shapes.items():
        name = {"table": "encoder.0.weight", "extra": "task.weights", "number": "model.norm.weight"}[key]
        weights[name] = tensor
    return weights


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (changed(extra=torch.ones(1)), r"Key 'task\.weights' is not part of"),
        (changed(number=3), r"state_dict\['model\.norm\.weight'\] is a int, not a tensor"),
        (changed(table=torch.ones(1).expand(2**40, 8)), r"encoder\.0\.weight'\] is no tensor with values of its own"),
        (changed(table=torch.ones(200, 8)), r"200 rows, which is no power of two"),
        (changed(table=torch.ones(1024, 8)), r"bits must be 8, 16 or 24; got 10"),
        (
            {k: v for k, v in state_dict().items() if ".norm.weight" not in k},
            r"1 parameters are missing \(backbone\.norm",
        ),
        ({k: v for k, v in state_dict().items() if "A_real" not in k}, r"no c_layers\.0.*A_real"),
        ({k: v for k, v in before_version_4().items() if not k.endswith(".L")}, r"for which length C is stored"),
        ({k.replace("log_w_real", "w"): v for k, v in before_version_4().items()}, r"learn w and Q \(hurwitz: false\)"),
    ],
    ids=["key", "number", "expanded", "rows", "bits", "missing", "no kernel", "no length", "hurwitz"],
)
def test_tensors_that_are_no_such_model_are_named(tmp_path, weights, message):
    settings = hyper_parameters()
    settings["dataset"]["bits"] = "???"
    with pytest.raises(CheckpointError, match=rf"wrong\.ckpt: .*{message}"):
        load_lightning(save(tmp_path / "wrong.ckpt", weights, settings))
