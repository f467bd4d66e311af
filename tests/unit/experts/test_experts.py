"""The experts: the compiled loops against the readable reference, the same bits however they are called, bounded."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from processors import on_x86_64, printed_on_each_processor
from small_experts import SMALL
from stereo_sashimi.experts.adaptive import AdaptiveExperts, experts_of
from stereo_sashimi.experts.plan import SLACK, ExpertsConfig
from stereo_sashimi.experts.reference_experts import ReferenceExperts


def music(length: int, n_channels: int, bits: int = 16, seed: int = 0) -> torch.Tensor:
    """Codes (1, length, channels) of two sines and some noise that the channels share in part."""
    rng = np.random.default_rng(seed)
    t = np.arange(length)[:, None]
    tones = np.sin(t * np.array([0.05, 0.071, 0.09])[:n_channels]) + 0.5 * np.sin(0.31 * t)
    noise = 0.05 * (rng.standard_normal((length, 1)) + rng.standard_normal((length, n_channels)))
    amplitude = 2 ** (bits - 3)
    codes = np.rint(amplitude * (tones + noise)) + 2 ** (bits - 1)
    return torch.from_numpy(codes.astype(np.int64))[None]


def flat(said: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Base, means, log scales, log weights, features and error."""
    experts = experts_of(said)
    return (*experts.reference, experts.features, experts.error.unsqueeze(-1))


def with_repetition(codes: torch.Tensor, lag: int) -> torch.Tensor:
    """The same noise over the music again and again, every `lag` frames."""
    lsb = int(codes.max() - codes.min()) // 16
    noise = torch.from_numpy(np.random.default_rng(3).integers(-lsb, lsb, (lag, codes.shape[2])))
    return codes + noise.repeat(1 + codes.shape[1] // lag, 1)[: codes.shape[1]]


@pytest.mark.parametrize(
    ("config", "n_channels", "bits", "coupled"),
    [
        (SMALL, 1, 16, True),
        (SMALL, 2, 16, True),
        (SMALL, 2, 8, False),
        # Of three channels a repetition reads more than these few frames determine: rounding grows.
        (replace(SMALL, repeats=0), 3, 16, True),
        (SMALL, 2, 16, False),
        (ExpertsConfig(), 2, 16, True),
    ],
)
def test_the_loops_compute_what_the_reference_computes(config, n_channels, bits, coupled):
    codes = music(SLACK + 60, n_channels, bits)
    codes = with_repetition(codes, 70).clamp(0, 2**bits - 1)
    codes[0, 20:24] = 0
    codes[0, 40] = 2**bits - 1
    bases, frames = ReferenceExperts(config, n_channels, 2**bits, coupled).run(codes[0].numpy())
    found, _ = AdaptiveExperts(config, n_channels, 2**bits, coupled).predict(codes)
    base, *numbers = flat(found)
    assert (base[0].numpy() == bases).all()
    np.testing.assert_allclose(torch.cat(numbers, dim=-1)[0].numpy(), frames, atol=2e-4, rtol=2e-5)


def test_any_chunking_batch_and_number_of_threads_gives_the_same_bits():
    codes = torch.cat([music(2 * SLACK + 77, 2, seed=seed) for seed in range(3)])
    experts = AdaptiveExperts(SMALL, 2, 65536)
    whole, state = experts.predict(codes)
    assert state is None
    threads = torch.get_num_threads()
    try:
        for n, size in ((1, 1), (2, 100), (2, SLACK)):
            torch.set_num_threads(n)
            state = experts.initial_state(3)
            first = state.clone()
            parts = []
            for chunk in codes.split(size, dim=1):
                part, state = experts.predict(chunk, state)
                parts.append(flat(part))
            for field, joined in zip(flat(whole), map(torch.cat, zip(*parts, strict=True), [1] * 6), strict=True):
                assert torch.equal(field, joined)
            assert torch.equal(first, experts.initial_state(3))
    finally:
        torch.set_num_threads(threads)
    alone, _ = experts.predict(codes[1:2])
    assert all(torch.equal(field[1:2], own) for field, own in zip(flat(whole), flat(alone), strict=True))


def test_each_code_is_described_without_looking_at_it_or_beyond():
    experts, codes = AdaptiveExperts(SMALL, 2, 65536), music(100, 2)
    changed = codes.clone()
    changed[0, 60, 1] += 999
    before, after = (flat(experts.predict(c)[0]) for c in (codes, changed))
    for own, other in zip(before[:-1], after[:-1], strict=True):
        assert torch.equal(own[:, :61], other[:, :61])
    assert not torch.equal(before[-1][:, 60], after[-1][:, 60])
    assert not torch.equal(before[1][:, 61], after[1][:, 61])
    # Right sees left of the same frame, unless channels are independent.
    changed[0, 60] = codes[0, 60] + torch.tensor([999, 0])
    assert not torch.equal(before[1][:, 60, 1], flat(experts.predict(changed)[0])[1][:, 60, 1])
    alone = AdaptiveExperts(SMALL, 2, 65536, coupled=False)
    means = [flat(alone.predict(c)[0])[1][:, 60] for c in (codes, changed)]
    assert torch.equal(*means)


def test_what_is_played_again_is_known():
    """The second time a noise is played it costs next to nothing, over whatever is played beside it."""
    noise = torch.from_numpy(np.random.default_rng(0).integers(-3000, 3000, (1, 3000, 2)))
    codes = 32768 + torch.cat([noise] * 4, dim=1)
    said, _ = AdaptiveExperts(ExpertsConfig(search=512), 2, 65536).predict(codes)
    base, means, *_ = flat(said)
    error = (codes - base - means[..., 0])[0].abs()
    assert error[1000:3000].mean() > 1000
    assert error[7000:].mean() < 100
    alone, _ = AdaptiveExperts(ExpertsConfig(repeats=0), 2, 65536).predict(codes)
    base, means, *_ = flat(alone)
    assert (codes - base - means[..., 0])[0, 7000:].abs().mean() > 1000


def test_music_is_predicted():
    """Behind some thousand frames the tones are gone. Two noises are left, one of which right has from left."""
    codes = music(6000, 2)
    said, _ = AdaptiveExperts(ExpertsConfig(), 2, 65536).predict(codes)
    base, means, *_ = flat(said)
    error = (codes - base - means[..., 0])[0, 4000:]
    noise = 0.05 * 2**13
    assert error[:, 0].std() < 1.1 * noise * 2**0.5
    assert error[:, 1].std() < 1.1 * noise * 1.5**0.5


def test_silence_leaves_no_subnormal_numbers():
    """Processors take many times as long for these, and what fades in silence would come to them."""
    experts = AdaptiveExperts(SMALL, 2, 65536)
    codes = torch.cat([music(2000, 2), torch.full((1, 60_000, 2), 1 << 15)], dim=1)
    _, state = experts.predict(codes, experts.initial_state(1))
    size = state.abs()
    assert not ((size > 0) & (size < np.finfo(np.float64).tiny)).any()


def extremes(bits: int) -> dict[str, np.ndarray]:
    top, rng, length = 2**bits - 1, np.random.default_rng(0), 900
    square = np.where(np.arange(length) // 50 % 2 == 0, 0, top)
    jump = np.where(np.arange(length) < 600, 2 ** (bits - 1), rng.choice([0, top], length))
    sounds = {
        "silence": np.full(length, 2 ** (bits - 1)),
        "square": square,
        "clipped noise": rng.choice([0, top], length),
        "jump": jump,
        "constant": np.full(length, top),
        "one frame": np.array([top]),
        "nothing": np.array([], int),
    }
    return {name: np.stack([x, x[::-1]], axis=1).astype(np.int64) for name, x in sounds.items()}


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("name", extremes(8))
def test_extremes_are_bounded(name, bits):
    codes, experts = torch.from_numpy(extremes(bits)[name])[None], AdaptiveExperts(ExpertsConfig(), 2, 2**bits)
    said, state = experts.predict(codes, experts.initial_state(1))
    assert all(field.isfinite().all() for field in (*flat(said), state))
    base, mean, _, log_weight, features, error = flat(said)
    assert ((base >= 0) & (base < 2**bits)).all()
    assert ((base[..., None] + mean).abs() <= 2**bits).all()
    assert (features.abs() < 20).all()
    assert (error.abs() <= 4).all()
    np.testing.assert_allclose(log_weight.double().logsumexp(-1).numpy(), 0, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 300), st.sampled_from([1, 2]), st.floats(0, 1))
def test_any_codes_are_bounded(seed, length, n_channels, loudness):
    rng = np.random.default_rng(seed)
    codes = 128 + np.rint(loudness * rng.integers(-128, 128, (1, length, n_channels))).astype(np.int64)
    said, _ = AdaptiveExperts(SMALL, n_channels, 256).predict(torch.from_numpy(codes))
    assert all(field.isfinite().all() for field in flat(said))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("own", (0, 9)), ("own", (6,)), ("other", (65, 2)), ("every", (0, 1)), ("forgetting", (1.0, 0.9))),
        *(("repeats", 60), ("match", 8), ("search", 0)),
        *(
            ("steps", (0.0,)),
            ("steps", (0.1, 0.1, 0.1)),
            ("orders", (24,)),
            ("orders", (16,) * 8),
            ("mixing", (1.0,)),
            ("mixing", ()),
        ),
    ],
)
def test_sizes_out_of_range_are_refused_by_name(field, value):
    fields = {name: getattr(SMALL, name) for name in SMALL.__dataclass_fields__}
    with pytest.raises(ValueError, match="experts"):
        ExpertsConfig(**{**fields, field: value})


PRINTED = """
import sys
sys.path.insert(0, {folder!r})
from test_experts import SMALL, flat, music
from stereo_sashimi.experts.adaptive import AdaptiveExperts
for field in flat(AdaptiveExperts(SMALL, 2, 65536).predict(music(400, 2))[0]):
    print(field.numpy().tobytes().hex())
"""


@pytest.mark.slow
@pytest.mark.long
@on_x86_64
def test_no_bit_depends_on_the_vector_instructions_of_the_processor(tmp_path):
    assert len(printed_on_each_processor(PRINTED.format(folder=str(Path(__file__).parent)), tmp_path)) == 1
