"""What only a CUDA device can show; run with `make gpu`."""

import copy

import pytest
import torch

from stereo_sashimi import AudioSpec, LanguageModelConfig, Sampler, Stream
from stereo_sashimi.generation.engines.cuda_graph import CudaGraphEngine
from stereo_sashimi.models.sashimi import SashimiConfig
from stereo_sashimi.nn import CategoricalHeadConfig, DMLHeadConfig, S4Config, S4DConfig

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CASES = [
    (SashimiConfig(n_layers=2, layer=S4Config()), DMLHeadConfig("autoregressive"), 16),
    (SashimiConfig(n_layers=2, layer=S4DConfig(), unet=True), CategoricalHeadConfig("autoregressive"), 8),
]
each_model = pytest.mark.parametrize(("backbone", "head", "bits"), CASES, ids=["dml", "categorical"])


def build(backbone, head, bits):
    torch.manual_seed(0)
    return LanguageModelConfig(AudioSpec(44100, 2, bits), model=backbone, decoder=head).build().eval()


def drawn(stream, n_frames, seeds, sampler=None, frames_at_once=1024):
    frames = list(stream.generate(n_frames, sampler, seeds, frames_at_once))
    return torch.cat([frame.codes for frame in frames], 1), torch.cat([frame.log_prob for frame in frames], 1)


@each_model
def test_forward_agrees_with_the_cpu(backbone, head, bits):
    model = build(backbone, head, bits)
    codes = torch.randint(0, 2**bits, (2, 4096, 2))
    with torch.no_grad():
        hidden, log_prob = model.hidden_for(codes), model.log_prob(codes)
        on_gpu = copy.deepcopy(model).cuda()
        torch.testing.assert_close(on_gpu.hidden_for(codes.cuda()).cpu(), hidden, rtol=0, atol=1e-4)
        torch.testing.assert_close(on_gpu.log_prob(codes.cuda()).cpu(), log_prob, rtol=1e-4, atol=1e-3)


@each_model
def test_training_falls_and_sampling_agrees_with_one_pass(backbone, head, bits):
    model = build(backbone, head, bits).train().cuda()
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
    codes, log_prob = drawn(Stream(model.eval(), batch_size=2), 200, [0, 1], Sampler())
    with torch.no_grad():
        torch.testing.assert_close(model.log_prob(codes), log_prob, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("fused", [False, True])
@each_model
def test_graphs_give_the_parameters_of_the_reference(backbone, head, bits, fused):
    """2,000 teacher-forced frames, against the reference on the GPU and on the CPU."""
    model = build(backbone, head, bits)
    codes = torch.randint(0, 2**bits, (2, 2000, 2))
    on_gpu = copy.deepcopy(model).cuda()
    stream = Stream(on_gpu, 2, engine="cudagraph")
    state = stream.state()
    stream.engine = CudaGraphEngine(stream.model, 2, fused)
    stream.restore(state)
    others = [(Stream(on_gpu, 2, engine="reference"), codes.cuda()), (Stream(model, 2, engine="reference"), codes)]
    ours = stream.step(codes.cuda())
    n_choices = model.head.d_output if bits == 8 else model.head.n_mixtures

    def parameters(model, hidden, codes):
        steps = [model.head.channel_parameters(hidden[:, :-1], codes[:, 1:, :c], c).cpu() for c in range(2)]
        return torch.stack(steps, dim=-2)

    params = parameters(stream.model, ours, codes.cuda())
    for other, same_codes in others:
        expected = other.step(same_codes)
        torch.testing.assert_close(ours.cpu(), expected.cpu(), rtol=0, atol=1e-4)
        expected = parameters(other.model, expected, same_codes)
        torch.testing.assert_close(params, expected, rtol=0, atol=1e-4)
        best = expected[..., :n_choices].topk(2, dim=-1)
        clear = best.values[..., 0] - best.values[..., 1] > 2e-4
        assert clear.float().mean() > 0.5
        assert torch.equal(params[..., :n_choices].argmax(-1)[clear], best.indices[..., 0][clear])


@pytest.mark.parametrize("frames_at_once", [1, 1000, 44100])
@each_model
def test_a_second_of_stereo_is_the_same_bits_again(backbone, head, bits, frames_at_once):
    model = build(backbone, head, bits).cuda()
    stream = Stream(model, 2, engine="cudagraph")
    codes, log_prob = drawn(stream, 44100, [1, 2])
    assert codes.shape == (2, 44100, 2)
    again = drawn(Stream(model, 2, engine="cudagraph"), 44100, [1, 2], frames_at_once=frames_at_once)
    assert torch.equal(codes, again[0])
    assert torch.equal(log_prob, again[1])
    with torch.no_grad():
        expected = model.log_prob(codes[:, :4096])
        torch.testing.assert_close(expected, log_prob[:, :4096], rtol=1e-3, atol=1e-3)


@each_model
def test_streams_go_on_from_each_others_states(backbone, head, bits):
    """Graphs, reference, graphs, with another sampler each time, in the middle of periods."""
    model = build(backbone, head, bits).cuda().double()
    names = ["cudagraph", "reference", "cudagraph"]
    mixed, plain = [Stream(model, 1, engine=name) for name in names], Stream(model, 1, engine="reference")
    for i, sampler in enumerate([Sampler(), Sampler(0.7), Sampler(0.0)]):
        if i:
            mixed[i].restore(mixed[i - 1].state())
        (codes, log_prob), (expected, expected_log_prob) = (
            drawn(stream, 333, [i], sampler, frames_at_once=100) for stream in (mixed[i], plain)
        )
        assert torch.equal(codes, expected)
        torch.testing.assert_close(log_prob, expected_log_prob, rtol=0, atol=1e-8)


@pytest.mark.parametrize("sampler", [Sampler(top_k=5, top_p=0.9), Sampler(0.0)], ids=["restricted", "cold"])
def test_restricted_draws_are_captured_too(sampler):
    backbone, head, bits = CASES[1]
    model = build(backbone, head, bits).cuda().double()
    ours, reference = (Stream(model, 3, engine=name) for name in ("cudagraph", "reference"))
    assert torch.equal(drawn(ours, 50, [1, 2, 3], sampler)[0], drawn(reference, 50, [1, 2, 3], sampler)[0])
