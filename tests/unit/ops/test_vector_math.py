"""Vector functions inside numba: as accurate as they say, defined at the ends, the same in every place."""

import sys
import types
from typing import NamedTuple

import numba
import numpy as np
import pytest
import torch

from stereo_sashimi.ops.cpu.constants import SIMD_WIDTH
from stereo_sashimi.ops.cpu.vector import _sources, compiled, is_kept, load, store
from stereo_sashimi.ops.cpu.vector_math import (
    exp_of_negative,
    fma,
    fnma,
    gelu,
    magnitude,
    product,
    sigmoid,
    splat,
    total,
)

ENDS = np.float32([-3e38, -1000, -100, -87.5, -1e-20, -0.0, 0, 1e-38, 1e-20, 87.5, 100, 1000, 3e38, 1, -1, 0.5])


@compiled
def functions(x, exp, sig, gel):
    for i in range(0, len(x), SIMD_WIDTH):
        v = load(x, i)
        store(exp, i, exp_of_negative(splat(0.0) - magnitude(v)))
        store(sig, i, sigmoid(v))
        store(gel, i, gelu(v))


@compiled
def products(x, y, z, out):
    a, b, c = load(x, 0), load(y, 0), load(z, 0)
    store(out, 0, fma(a, b, c))
    store(out, SIMD_WIDTH, fnma(a, b, c))
    store(out, 2 * SIMD_WIDTH, product(a, b) + c)
    return total(a)


def evaluate(x: np.ndarray) -> list[np.ndarray]:
    results = [np.empty_like(x) for _ in range(3)]
    functions(x, *results)
    return results


def test_functions_are_accurate():
    x = np.concatenate([np.linspace(-20, 20, 160000, dtype=np.float32), ENDS])
    exp, sig, gel = (torch.from_numpy(y).double() for y in evaluate(x))
    t = torch.from_numpy(x).double()
    true = (-t.abs()).exp()
    inside = t.abs() < 87
    assert ((exp - true).abs() / true)[inside].max() < 1.5e-7
    assert exp[~inside].max() < 1e-37
    assert (sig - t.sigmoid()).abs().max() < 1e-7
    assert ((gel - torch.nn.functional.gelu(t)).abs() / t.abs().clamp_min(1e-37)).max() < 4e-7
    assert gel[t > 10].equal(t[t > 10])


def test_a_value_does_not_depend_on_its_place():
    rng = np.random.default_rng(0)
    x = rng.normal(0, 4, SIMD_WIDTH).astype(np.float32)
    for shift in range(SIMD_WIDTH):
        for moved, plain in zip(evaluate(np.roll(x, shift)), evaluate(x), strict=True):
            assert np.array_equal(moved, np.roll(plain, shift))


def test_fused_products_are_rounded_once_and_others_twice():
    rng = np.random.default_rng(1)
    x, y, z = rng.normal(size=(3, SIMD_WIDTH)).astype(np.float32)
    z = -(x * y) * np.float32(1 + 2**-20)
    out = np.empty(3 * SIMD_WIDTH, np.float32)
    s = products(x, y, z, out)
    exact = x.astype(np.float64) * y.astype(np.float64)
    assert np.array_equal(out[:SIMD_WIDTH], (exact + z).astype(np.float32))
    assert np.array_equal(out[SIMD_WIDTH : 2 * SIMD_WIDTH], (z - exact).astype(np.float32))
    assert np.array_equal(out[2 * SIMD_WIDTH :], x * y + z)
    assert not np.array_equal(out[:SIMD_WIDTH], out[2 * SIMD_WIDTH :])
    halves = x
    while len(halves) > 1:
        halves = halves[: len(halves) // 2] + halves[len(halves) // 2 :]
    assert s == halves[0]


def test_cached_code_belongs_to_the_sources_it_was_made_of(tmp_path, monkeypatch):
    key = functions._cache._index_key((), functions.targetctx.codegen())
    assert key[-1] == _sources()
    (tmp_path / "ops").mkdir()
    simd = tmp_path / "ops" / "simd.py"
    simd.write_text("a = 1")
    monkeypatch.setattr("stereo_sashimi.ops.cpu.vector.__file__", str(simd))
    before = _sources.__wrapped__()
    (tmp_path / "user.py").write_text("from stereo_sashimi.ops.cpu.vector import compiled")
    assert _sources.__wrapped__() not in (before, key[-1])


@pytest.mark.parametrize("number", [np.float32(0.1), 0.1])
def test_a_number_fills_a_vector(number):
    @compiled
    def fill(x, out):
        store(out, 0, splat(x))

    out = np.zeros(SIMD_WIDTH, np.float32)
    fill(number, out)
    assert (out == np.float32(0.1)).all()


def test_an_index_that_names_a_class_of_an_earlier_version_is_made_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    module = types.ModuleType("earlier_version")
    module.Gone = NamedTuple("Gone", [("x", float)])
    module.Gone.__module__ = "earlier_version"
    monkeypatch.setitem(sys.modules, "earlier_version", module)
    assert compiled(first_of)(module.Gone(2.0)) == 2.0
    del module.Gone
    after = compiled(first_of)
    assert not is_kept(after)
    assert after((3.0,)) == 3.0
    assert is_kept(after)


def first_of(values):
    return values[0]
