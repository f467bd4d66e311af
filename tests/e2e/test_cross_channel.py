"""What one channel tells of the other is found, and nothing else: trained models on synthetic stereo, beside theory.

Left is white noise, so every bit has a known price. Three models are trained on each signal: separate channels
(`encoder.merge: none`), joint with independent heads (a channel sees the past of both), joint and coupled (the right
channel also sees left in the same frame). `pytest -n 0 -m slow tests/e2e/test_cross_channel.py` prints the table.
"""

import functools
import math

import pytest
import torch
from torch import Tensor

from stereo_sashimi.models.language_model import LanguageModelConfig
from stereo_sashimi.models.sashimi import SashimiConfig
from stereo_sashimi.nn.embedding import EmbeddingConfig
from stereo_sashimi.nn.heads.head import CategoricalHeadConfig, DMLHeadConfig
from stereo_sashimi.nn.s4 import S4DConfig
from stereo_sashimi.spec import AudioSpec
from stereo_sashimi.tasks.optim import AdamWConfig

# One process trains each model once.
pytestmark = pytest.mark.slow

LEFT_STD, NOISE_STD, GAIN = 16.0, 6.0, 0.75  # in codes of 8 bits
# I(L; R) of R = a L + n for Gaussians, in bits a frame.
MUTUAL_INFORMATION = 0.5 * math.log2(1 + (GAIN * LEFT_STD / NOISE_STD) ** 2)
MODELS = {
    "separate": ("none", "independent"),
    "joint": ("concat", "independent"),
    "coupled": ("concat", "autoregressive"),
}
HEADS = {"dml": lambda coupling: DMLHeadConfig(coupling, 2), "categorical": CategoricalHeadConfig}
# Both heads where channels are coupled; elsewhere one for CI, the other for `make long`.
one_head = pytest.mark.parametrize("head", ["categorical", pytest.param("dml", marks=pytest.mark.long)])


def stereo(kind: str, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Codes (batch, length, 2) of a signal."""
    left = LEFT_STD * torch.randn(shape, generator=generator)
    other = torch.randn(shape, generator=generator)
    right = {
        "scaled": GAIN * left + NOISE_STD * other,
        "delayed": left.roll(1, -1),
        "unrelated": LEFT_STD * other,
        "identical": left,
    }[kind]
    return (torch.stack([left, right], -1).round() + 128).clamp(0, 255).long()


@functools.cache
def bits(kind: str, model: str, head: str) -> tuple[float, float]:
    """Bits per sample of (left, right) on fresh audio, after training."""
    merge, coupling = MODELS[model]
    # A logistic takes longer to become as narrow as one code: after 600 steps that depends on the machine still.
    steps = 900 if (kind, head) == ("delayed", "dml") else 300
    torch.manual_seed(0)
    backbone = SashimiConfig(d_model=16, n_layers=1, pool=(), layer=S4DConfig(4, dt_min=0.1, dt_max=1.0))
    encoder = EmbeddingConfig(16, merge, "waveform")
    language_model = LanguageModelConfig(AudioSpec(16000, 2, 8), encoder, backbone, HEADS[head](coupling)).build()
    optimizer = AdamWConfig(lr=0.01).build(language_model)
    rates = [group["lr"] for group in optimizer.param_groups]
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=steps)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        loss = -language_model.log_prob(stereo(kind, (8, 256), generator)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
    with torch.no_grad():
        fresh = stereo(kind, (64, 512), generator)
        # The first frames have no past to be predicted from.
        log_prob = language_model.log_prob(fresh)[:, 8:].mean((0, 1)) / math.log(2)
    return -log_prob[0].item(), -log_prob[1].item()


def frame(kind: str, model: str, head: str) -> float:
    return sum(bits(kind, model, head))


@pytest.mark.parametrize("head", HEADS)
def test_the_same_frame_is_worth_its_mutual_information(head):
    gain = frame("scaled", "joint", head) - frame("scaled", "coupled", head)
    assert gain == pytest.approx(MUTUAL_INFORMATION, rel=0.1)


@one_head
def test_a_delay_is_seen_in_the_past_and_coupling_adds_nothing(head):
    assert abs(frame("delayed", "joint", head) - frame("delayed", "coupled", head)) < 0.1


@one_head
def test_unrelated_channels_gain_nothing(head):
    assert abs(frame("unrelated", "joint", head) - frame("unrelated", "coupled", head)) < 0.05


@one_head
def test_separate_channels_see_neither_past_nor_present_of_each_other(head):
    assert frame("delayed", "separate", head) - frame("delayed", "joint", head) > 5
    assert abs(frame("unrelated", "separate", head) - frame("unrelated", "joint", head)) < 0.05


@one_head
def test_an_identical_channel_is_almost_free(head):
    assert bits("identical", "coupled", head)[1] < 0.3
    assert bits("identical", "joint", head)[1] > 5


@pytest.mark.long
def test_the_table(capsys):
    entropy = math.log2(LEFT_STD * math.sqrt(2 * math.pi * math.e))
    noise = math.log2(NOISE_STD * math.sqrt(2 * math.pi * math.e))
    right = noise + MUTUAL_INFORMATION
    # Of a frame: separate, joint, coupled.
    theory = {
        "scaled": (entropy + right, entropy + right, entropy + noise),
        "delayed": (2 * entropy, entropy, entropy),
        "unrelated": (2 * entropy,) * 3,
        "identical": (2 * entropy, 2 * entropy, entropy),
    }
    lines = [f"{'bits a frame':<14}{'':<13}" + "".join(f"{model:>20}" for model in MODELS) + f"{'coupling gains':>20}"]
    for head in HEADS:
        for kind, expected in theory.items():
            # Separate channels with the other head as well would tell nothing new.
            measured = [frame(kind, model, head if model != "separate" else "dml") for model in MODELS]
            pairs = zip((*measured, measured[1] - measured[2]), (*expected, expected[1] - expected[2]), strict=True)
            lines.append(f"{kind:<14}{head:<13}" + "".join(f"{m:>11.3f} ({t:6.3f})" for m, t in pairs))
            for value, ideal in zip(measured, expected, strict=True):
                assert ideal - 0.05 < value < ideal + 0.3
    with capsys.disabled():
        print("\n" + "\n".join(lines) + "\n(theory in brackets; the separate models have the dml head)")
