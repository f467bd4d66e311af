"""Golden i: a whole language model with the key names of the original's Lightning checkpoints."""

import math

import pytest
import torch
from fixtures import load, state_of

from stereo_sashimi.interop import load_reference


@pytest.fixture(params=[torch.float64, torch.float32], ids=["f64", "f32"])
def case(request):
    tensors, config = load("i_lm_checkpoint")
    model = load_reference(state_of(tensors, "state.", request.param), config)
    return model, tensors, {torch.float64: 1e-9, torch.float32: 1e-4}[request.param]


@torch.no_grad()
def test_logits_whole_and_step_by_step(case):
    model, tensors, atol = case
    inputs = tensors["inputs"].long().unsqueeze(-1)
    hidden, _ = model(inputs)
    logits = model.head.parameters_for(hidden, None)[:, :, 0]
    torch.testing.assert_close(logits.double(), tensors["logits_f64"], rtol=0, atol=atol)
    state, steps = model.initial_state(inputs.shape[0]), []
    for frame in inputs.split(1, dim=1):
        hidden, state = model(frame, state)
        steps.append(model.head.parameters_for(hidden, None)[:, :, 0])
    torch.testing.assert_close(torch.cat(steps, 1).double(), tensors["step_logits_f64"], rtol=0, atol=atol)


@torch.no_grad()
def test_bits(case):
    model, tensors, atol = case
    nll = -model.log_prob(tensors["tokens"].long().unsqueeze(-1)).double().mean()
    assert nll.item() == pytest.approx(tensors["ce_f64"].item(), abs=atol)
    assert nll.item() / math.log(2) == pytest.approx(tensors["bpb_f64"].item(), abs=atol)
