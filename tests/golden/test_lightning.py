"""Golden i through whole Lightning checkpoints of the original: bits, logits, steps; versions 4 and before, fork."""

import math

import pytest
import torch
from fixtures import load, state_of
from lightning_files import CONFIG, TENSORS, before_version_4, hyper_parameters, save, state_dict

from stereo_sashimi.interop import load_lightning, load_reference
from stereo_sashimi.models import checkpoint
from stereo_sashimi.models.exported import save as save_exported
from stereo_sashimi.nn.s4 import SSMParameters
from stereo_sashimi.spec import AudioSpec

OLD = {"n_ssm": 1, "hurwitz": True, "real_type": "exp", "dt_transform": None}


def prefixed(weights):
    """As saved from torch.compile inside DistributedDataParallel."""
    return {"module." + key.replace("model.", "model._orig_mod.", 1): value for key, value in weights.items()}


def fork(weights):
    return {key.replace("encoder.0.weight", "encoder.0.embedding.weight"): value for key, value in weights.items()}


def v3_beside_softplus():
    return before_version_4("inv_w_real", lambda x: x.exp().expm1().log())


CASES = {
    "v4": (lambda: state_dict(torch.float64), hyper_parameters()),
    "v4 without a description": (lambda: state_dict(torch.float64), None),
    "ddp and compile": (lambda: prefixed(state_dict(torch.float64)), hyper_parameters()),
    "fork": (lambda: fork(state_dict(torch.float64)), hyper_parameters()),
    "log_w_real": (before_version_4, hyper_parameters(layer=OLD)),
    "inv_w_real": (lambda: before_version_4("inv_w_real"), hyper_parameters(layer=OLD)),
    "inv_w_real, none": (
        lambda: before_version_4("inv_w_real", torch.exp),
        hyper_parameters(layer=OLD | {"real_type": "none"}),
    ),
    "inv_w_real, softplus": (v3_beside_softplus, hyper_parameters(layer=OLD | {"real_type": "softplus"})),
}


def check(model, atol):
    tokens = TENSORS["tokens"].long().unsqueeze(-1)
    nll = -model.log_prob(tokens).double().mean().item()
    assert nll == pytest.approx(TENSORS["ce_f64"].item(), abs=atol)
    assert nll / math.log(2) == pytest.approx(TENSORS["bpb_f64"].item(), abs=atol)
    inputs = TENSORS["inputs"].long().unsqueeze(-1)
    whole = model.head.channel_parameters(model(inputs)[0], None, 0)
    torch.testing.assert_close(whole.double(), TENSORS["logits_f64"], rtol=0, atol=atol)
    state, steps = model.initial_state(len(inputs)), []
    for frame in inputs.split(1, dim=1):
        hidden, state = model(frame, state)
        steps.append(model.head.channel_parameters(hidden, None, 0))
    torch.testing.assert_close(torch.cat(steps, 1).double(), TENSORS["step_logits_f64"], rtol=0, atol=atol)


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_bits_logits_and_steps(tmp_path, case):
    weights, settings = CASES[case]
    assert any(int(v) > 0 for k, v in weights().items() if k.endswith(("l_kernel", "kernel.L"))), "C is not plain"
    path = save(tmp_path / "last.ckpt", weights(), settings)
    model = load_lightning(path, None if settings else CONFIG)
    assert model.spec == AudioSpec(16000, 1, 8, "mu-law", "minmax")
    assert not model.training
    check(model, 1e-9)


@torch.no_grad()
@pytest.mark.parametrize("settings", [hyper_parameters(), None], ids=["described", "config"])
def test_a_float32_file_is_exact_in_float64(tmp_path, settings):
    model = load_lightning(save(tmp_path / "last.ckpt", state_dict(), settings), None if settings else CONFIG)
    assert next(model.parameters()).dtype == torch.float32
    check(model, 1e-4)
    check(model.double(), 1e-9)


@torch.no_grad()
def test_the_model_alone_and_exported(tmp_path):
    """`.double()` on what comes back from an export is as exact as on what was saved."""
    model = load_reference(state_dict(), CONFIG)
    assert any(isinstance(m, SSMParameters) and m.C_remainder is not None for m in model.modules())
    exported = checkpoint.load(save_exported(model, tmp_path / "model"))
    assert exported.config == model.config
    for one in (model, exported):
        check(one, 1e-4)
    tokens = TENSORS["tokens"].long().unsqueeze(-1)
    assert torch.equal(exported.log_prob(tokens), model.log_prob(tokens))
    assert torch.equal(exported.double().log_prob(tokens), model.double().log_prob(tokens))
    check(load_reference(state_dict(torch.float64), CONFIG), 1e-9)


@torch.no_grad()
def test_dt_transform_is_what_tells_softplus_from_exp(tmp_path):
    """The same tensors under the other transform are another model, so the description counts."""
    path = save(tmp_path / "last.ckpt", state_dict(torch.float64), hyper_parameters(layer={"dt_transform": "exp"}))
    tokens = TENSORS["tokens"].long().unsqueeze(-1)
    with_exp, with_softplus = load_lightning(path), load_lightning(path, {"dt_transform": "softplus"})
    check(with_softplus, 1e-9)
    assert (with_exp.log_prob(tokens) - with_softplus.log_prob(tokens)).abs().max() > 0.01


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("c2_sashimi_modular_p44_fit", {"_name_": "sashimi"}),
        ("d1_sashimi_standalone_unet", {"_name_": "sashimi_standalone", "unet": True}),
        ("d2_sashimi_standalone_nounet", {"_name_": "sashimi_standalone"}),
        ("d3_unet_modular", {"_name_": "unet", "pool_mode": "linear", "cff": 2}),
        ("e1_sashimi_modular_p22_L", {"_name_": "sashimi"}),
    ],
)
def test_every_backbone_of_the_original(tmp_path, name, model):
    tensors, config = load(name)
    weights = {"model." + k: v for k, v in state_of(tensors, "state.", torch.float64).items()}
    weights |= {k: v for k, v in state_dict(torch.float64).items() if not k.startswith("model.")}
    layer = {"n_ssm": config.get("n_ssm"), "d_state": config["d_state"]}
    layer["dt_transform"] = config.get("dt_transform", "softplus")
    shape = {key: config[key] for key in ("d_model", "n_layers", "pool", "expand", "ff")}
    settings = hyper_parameters(**shape, **model, layer=layer)
    loaded = load_lightning(save(tmp_path / "last.ckpt", weights, settings))
    y, _ = loaded.backbone(tensors["x"].double())
    torch.testing.assert_close(y, tensors["y_f64"], rtol=0, atol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("name", ["e1_sashimi_modular_p22_L", "d3_unet_modular"])
def test_a_backbone_alone_under_old_names(name):
    tensors, config = load(name)
    weights = before_version_4("inv_w_real", weights=state_of(tensors, "state.", torch.float64))
    y, _ = load_reference(weights, config)(tensors["x"].double())
    torch.testing.assert_close(y, tensors["y_f64"], rtol=0, atol=1e-9)
