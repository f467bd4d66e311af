"""What only a CUDA device can show; run with `make gpu`."""

import copy

import pytest
import torch

from stereo_sashimi import AudioSpec, LanguageModelConfig, Sampler, Stream
from stereo_sashimi.models import SashimiConfig
from stereo_sashimi.nn import CategoricalHeadConfig, DMLHeadConfig, S4Config, S4DConfig

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CASES = [
    (SashimiConfig(n_layers=2, layer=S4Config()), DMLHeadConfig("autoregressive"), 16),
    (SashimiConfig(n_layers=2, layer=S4DConfig(), unet=True), CategoricalHeadConfig("autoregressive"), 8),
]


@pytest.mark.parametrize(("backbone", "head", "bits"), CASES, ids=["dml", "categorical"])
def test_forward_agrees_with_the_cpu(backbone, head, bits):
    torch.manual_seed(0)
    model = LanguageModelConfig(AudioSpec(44100, 2, bits), model=backbone, decoder=head).build().eval()
    codes = torch.randint(0, 2**bits, (2, 4096, 2))
    with torch.no_grad():
        hidden, log_prob = model.hidden_for(codes), model.log_prob(codes)
        on_gpu = copy.deepcopy(model).cuda()
        torch.testing.assert_close(on_gpu.hidden_for(codes.cuda()).cpu(), hidden, rtol=0, atol=1e-4)
        torch.testing.assert_close(on_gpu.log_prob(codes.cuda()).cpu(), log_prob, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("backbone", "head", "bits"), CASES, ids=["dml", "categorical"])
def test_training_falls_and_sampling_agrees_with_one_pass(backbone, head, bits):
    torch.manual_seed(0)
    model = LanguageModelConfig(AudioSpec(44100, 2, bits), model=backbone, decoder=head).build().cuda()
    time = torch.arange(4096, device="cuda") / 44100
    wave = torch.stack([torch.sin(2 * torch.pi * 220 * time), torch.sin(2 * torch.pi * 330 * time)], dim=-1)
    codes = ((wave * 0.5 + 1) * 2 ** (bits - 1)).long().unsqueeze(0)
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=4e-3), []
    for _ in range(20):
        loss = -model.log_prob(codes).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.5
    stream = Stream(model.eval(), batch_size=2)
    frames = list(stream.generate(200, Sampler(), seeds=[0, 1]))
    drawn, log_prob = (torch.cat([frame[i] for frame in frames], dim=1) for i in (0, 1))
    with torch.no_grad():
        torch.testing.assert_close(model.log_prob(drawn), log_prob, rtol=1e-3, atol=1e-3)
