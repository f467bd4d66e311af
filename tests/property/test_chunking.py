"""Law 7, convolution = recurrence: one pass, any chunking and one frame at a time agree, and so do their states.

What may depend on what in time is in `test_causality.py`.
"""

import dataclasses
from collections.abc import Iterator

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from stereo_sashimi.models.language_model_config import LanguageModelConfig
from stereo_sashimi.models.sashimi import SashimiConfig, SashimiState
from stereo_sashimi.nn.embedding import MERGES, EmbeddingConfig
from stereo_sashimi.nn.heads.head import COUPLINGS, CategoricalHeadConfig, DMLHeadConfig
from stereo_sashimi.nn.pooling import DownPool, UpPool
from stereo_sashimi.nn.s4 import S4, S4Config, S4DConfig
from stereo_sashimi.spec import AudioSpec

ATOL = {torch.float64: 1e-9, torch.float32: 1e-4}

seeds = st.integers(0, 2**31)
dtypes = st.sampled_from([torch.float64, torch.float32])
batches = st.integers(1, 3)
prefixes = st.integers(0, 7)
# Totals are mostly no multiple of any pool.
chunkings = st.lists(st.integers(1, 7), min_size=1, max_size=4)
common = {
    "d_state": st.sampled_from([2, 4, 8]),
    "n_ssm": st.sampled_from([1, None]),
    "dt_min": st.just(0.01),
    "dt_max": st.just(0.5),
    "dt_transform": st.sampled_from(["softplus", "exp"]),
}
layers = st.builds(S4Config, **common) | st.builds(
    S4DConfig,
    **common,
    init=st.sampled_from(["legs", "lin", "inv"]),
    discretization=st.sampled_from(["zoh", "bilinear"]),
)
# Fields, not configs: the shape checker of the tests draws random numbers, which a strategy must not.
backbones = st.fixed_dictionaries(
    {
        "d_model": st.just(4),
        "n_layers": st.integers(1, 2),
        "pool": st.sampled_from([(4,), (2, 2), (3, 2)]),
        "unet": st.booleans(),
        "norm": st.sampled_from(["layer", "scalar"]),
        "pool_weight_norm": st.booleans(),
        "layer": layers,
    }
)
heads = st.builds(CategoricalHeadConfig, coupling=st.sampled_from(COUPLINGS)) | st.builds(
    DMLHeadConfig, coupling=st.sampled_from(COUPLINGS), n_mixtures=st.just(2)
)


def perturbed(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Move every parameter a little, so that none is zero or one by its initialisation."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module.to(dtype).eval()


def leaves(state: SashimiState | Tensor | None) -> Iterator[Tensor]:
    if isinstance(state, Tensor):
        yield state
    elif state is not None:
        for layer in state.layers:
            yield from leaves(layer)


def in_chunks(module: nn.Module, x: Tensor, state, lengths: list[int]):
    outputs = []
    for part in x.split(lengths, dim=1):
        y, state = module(part, state)
        outputs.append(y)
    return torch.cat(outputs, dim=1), state


def check(module: nn.Module, x: Tensor, prefix: int, chunks: list[int], atol: float) -> None:
    """Compare every way to walk `x` (batch, prefix + sum(chunks), ..), from the start and from a state amid it."""
    start = module.initial_state(x.shape[0])
    full, none = module(x)
    assert none is None, "a pass without a state returned one"
    state = module(x[:, :prefix], start)[1] if prefix else start
    rest = x[:, prefix:]
    whole, end = module(rest, state)
    torch.testing.assert_close(whole, full[:, prefix:], rtol=0, atol=atol)
    for lengths in (chunks, [1] * rest.shape[1]):
        y, final = in_chunks(module, rest, state, lengths)
        torch.testing.assert_close(y, whole, rtol=0, atol=atol)
        torch.testing.assert_close(list(leaves(final)), list(leaves(end)), rtol=atol, atol=atol)
        assert getattr(final, "phase", None) == getattr(end, "phase", None)


@torch.no_grad()
@given(layer=layers, chunks=chunkings, prefix=prefixes, batch=batches, dtype=dtypes, seed=seeds)
@example(layer=S4Config(d_state=4), chunks=[1], prefix=0, batch=1, dtype=torch.float64, seed=0)
@settings(max_examples=25, deadline=None)
def test_s4_chunks_equal_one_pass(layer, chunks, prefix, batch, dtype, seed):
    torch.manual_seed(seed)
    module = perturbed(S4(4, layer), dtype)
    check(module, torch.randn(batch, prefix + sum(chunks), 4, dtype=dtype), prefix, chunks, ATOL[dtype])


@torch.no_grad()
@given(pool=st.integers(1, 4), weight_norm=st.booleans(), chunks=chunkings, prefix=prefixes, batch=batches, seed=seeds)
@settings(max_examples=20, deadline=None)
def test_down_pool_chunks_equal_one_pass(pool, weight_norm, chunks, prefix, batch, seed):
    torch.manual_seed(seed)
    module = perturbed(DownPool(3, 5, pool, weight_norm), torch.float64)
    x = torch.randn(batch, prefix + sum(chunks), 3, dtype=torch.float64)
    full, none = module(x)
    assert none is None
    for lengths in ([prefix, *chunks] if prefix else chunks, [1] * x.shape[1]):
        y, remainder = in_chunks(module, x, module.initial_state(batch), lengths)
        torch.testing.assert_close(y, full, rtol=0, atol=1e-12)
        assert torch.equal(remainder, x[:, x.shape[1] // pool * pool :])


@torch.no_grad()
@given(pool=st.integers(1, 4), weight_norm=st.booleans(), chunks=chunkings, batch=batches, seed=seeds)
@settings(max_examples=20, deadline=None)
def test_up_pool_chunks_equal_one_pass(pool, weight_norm, chunks, batch, seed):
    torch.manual_seed(seed)
    module = perturbed(UpPool(5, 3, pool, weight_norm), torch.float64)
    total = sum(chunks)
    low = torch.randn(batch, total // pool, 5, dtype=torch.float64)
    full, none = module(low, None, total)
    assert none is None
    assert full.shape == (batch, total, 3)
    for lengths in (chunks, [1] * total):
        outputs, pending, seen = [], module.initial_state(batch), 0
        for length in lengths:
            # What a DownPool would have emitted within these frames, maybe nothing.
            complete = low[:, seen // pool : (seen + length) // pool]
            y, pending = module(complete, pending, length)
            outputs.append(y)
            seen += length
        torch.testing.assert_close(torch.cat(outputs, 1), full, rtol=0, atol=1e-12)
        assert pending.shape[1] == pool - total % pool


@torch.no_grad()
@given(
    config=backbones,
    head=heads,
    merge=st.sampled_from(MERGES),
    n_channels=st.integers(1, 2),
    chunks=chunkings,
    prefix=prefixes,
    batch=batches,
    dtype=dtypes,
    seed=seeds,
)
@settings(max_examples=14, deadline=None)
def test_language_model_chunks_equal_one_pass(config, head, merge, n_channels, chunks, prefix, batch, dtype, seed):
    torch.manual_seed(seed)
    spec, encoder = AudioSpec(16000, n_channels, 8), EmbeddingConfig(d_model=4, merge=merge)
    if encoder.separate:
        head = dataclasses.replace(head, coupling="independent")
    model = perturbed(LanguageModelConfig(spec, encoder, SashimiConfig(**config), head).build(), dtype)
    codes = torch.randint(256, (batch, prefix + sum(chunks), n_channels))
    inputs = torch.cat([model.start_codes(batch), codes[:, :-1]], dim=1)
    check(model, inputs, prefix, chunks, ATOL[dtype])
    expected = model.log_prob(codes)
    state, log_probs = model.initial_state(batch), []
    for segment, following in zip(inputs.split(chunks[0], 1), codes.split(chunks[0], 1), strict=True):
        hidden, state = model(segment, state)
        log_probs.append(model.score(hidden, following).log_prob)
    torch.testing.assert_close(torch.cat(log_probs, 1), expected, rtol=0, atol=ATOL[dtype])


@given(config=backbones, chunks=chunkings, seed=seeds)
@settings(max_examples=6, deadline=None)
def test_gradients_flow_through_carried_states(config, chunks, seed):
    torch.manual_seed(seed)
    module = perturbed(SashimiConfig(**config).build(), torch.float64)
    x = torch.randn(2, sum(chunks), 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn_like(x)
    # UpPool without a complete group, and what depends on it alone, has no gradient in either form.
    wanted = [x, *module.parameters()]
    full = torch.autograd.grad((module(x)[0] * weight).sum(), wanted, allow_unused=True, materialize_grads=True)
    y, _ = in_chunks(module, x, module.initial_state(2), chunks)
    carried = torch.autograd.grad((y * weight).sum(), wanted, allow_unused=True, materialize_grads=True)
    for ours, expected in zip(carried, full, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-8, atol=1e-9 * (1 + expected.abs().max().item()))


@torch.no_grad()
@pytest.mark.parametrize("unet", [False, True])
def test_rows_of_a_state_are_independent(unet):
    """States are batch first: running selected rows of a batch equals running these rows alone."""
    module = perturbed(SashimiConfig(d_model=4, n_layers=1, pool=(2, 2), unet=unet).build(), torch.float64)
    x = torch.randn(3, 12, 4, dtype=torch.float64)
    _, state = module(x[:, :7], module.initial_state(3))
    rows = torch.tensor([2, 0])
    chosen = SashimiState(state.phase, tuple(None if t is None else t[rows] for t in state.layers))
    expected, _ = module(x[:, 7:], state)
    y, _ = module(x[rows, 7:], chosen)
    torch.testing.assert_close(y, expected[rows], rtol=0, atol=1e-12)


@torch.no_grad()
def test_phase_counts_frames_modulo_the_stride():
    module = SashimiConfig(d_model=4, n_layers=1, pool=(3, 2)).build().eval()
    state, seen = module.initial_state(1), 0
    assert state.phase == 0
    for length in (1, 4, 6, 1, 11):
        _, state = module(torch.randn(1, length, 4), state)
        seen += length
        assert state.phase == seen % 6
    assert seen % 6, "the last phase would not tell a constant from a count"
