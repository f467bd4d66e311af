"""Golden i through an exported model: `.double()` on what comes back is as exact as on what was saved."""

import torch
from fixtures import load, state_of

from stereo_sashimi.interop import load_reference
from stereo_sashimi.models import checkpoint
from stereo_sashimi.models.exported import save
from stereo_sashimi.nn.s4 import SSMParameters


@torch.no_grad()
def test_an_exported_reference_model_keeps_the_digits_of_c(tmp_path):
    tensors, config = load("i_lm_checkpoint")
    model = load_reference(state_of(tensors, "state.", torch.float32), config)
    assert any(isinstance(m, SSMParameters) and m.C_remainder is not None for m in model.modules())
    loaded = checkpoint.load(save(model, tmp_path / "model"))
    assert loaded.config == model.config
    tokens = tensors["tokens"].long().unsqueeze(-1)
    assert torch.equal(loaded.log_prob(tokens), model.log_prob(tokens))
    assert torch.equal(loaded.double().log_prob(tokens), model.double().log_prob(tokens))
