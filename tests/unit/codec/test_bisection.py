"""Decisions between halves: any parameters give probabilities, which are those of the model; the range coder."""

import math

import numpy as np
import pytest
import torch
from codec_models import small
from hypothesis import given, settings
from hypothesis import strategies as st

from stereo_sashimi.codec import range_coder
from stereo_sashimi.codec.bisection import code_by_halves, room
from stereo_sashimi.codec.coders import Coders
from stereo_sashimi.codec.range_coder import PRECISION
from stereo_sashimi.distributions import logistic_mixture as dml
from stereo_sashimi.generation.engines.compiled.program import OPERATION, PackedHead
from stereo_sashimi.generation.stream import Stream

WHOLE = 1 << PRECISION


class Ideal:
    """Codes under one distribution, each with a coder of its own; sizes in bits, without the end of a code."""

    def __init__(self, params: torch.Tensor, levels: int, unit: float, centre: int) -> None:
        k, self.centre = len(params) // 3, centre
        linear, tables = np.zeros(1, OPERATION), np.zeros((0, 0, 0), np.float32)
        linear["groups"] = -(-3 * k // 16)
        self.memory = np.zeros(linear["groups"][0] * 16, np.float32)
        self.memory[: 3 * k] = params.float().numpy()
        self.head = PackedHead(False, False, levels, k, unit, 0, 0, linear, linear[:0], linear[:0], tables)
        self.mixture, self.sums = room(self.head)

    def run(self, data: np.ndarray, coder: np.ndarray, at: int, code: int, encodes: bool) -> tuple[int, int]:
        return code_by_halves(
            *(self.head, self.memory, 0, self.centre, self.mixture, self.sums),
            *(coder[0], data, at, len(data), code, encodes),
        )

    def bits(self, code: int) -> float:
        """-log2 of the probability that the decisions give it: how far the interval of the coder shrinks."""
        coder, data = range_coder.new_coders(1), np.zeros(200, np.uint8)
        _, at = self.run(data, coder, 0, code, True)
        low, high = (int(x) for x in coder[0, :2])
        return 8 * at + 64 - math.log2(high - low + 1)

    def comes_back(self, code: int) -> None:
        coder, data = range_coder.new_coders(1), np.zeros(200, np.uint8)
        _, at = self.run(data, coder, 0, code, True)
        range_coder.finish(coder[0], data, at)
        coder = range_coder.new_coders(1)
        assert self.run(data, coder, range_coder.begin(coder[0], data, 0, len(data)), 0, False)[0] == code


@pytest.mark.parametrize("log_scale", [-11.0, -8.0, -5.0, -2.0, 0.0])
@pytest.mark.parametrize("mean", [-1.2, -0.3, 0.0001, 0.9999])
@pytest.mark.parametrize("bits", [8, 16])
def test_decisions_have_the_mass_of_the_code(mean, log_scale, bits):
    params = torch.tensor([0.3, -1.0, mean, mean + 0.1, log_scale, log_scale + 0.5], dtype=torch.float64)
    levels = 1 << bits
    exact = -dml.log_mass(params, levels).numpy() / math.log(2)
    ideal = Ideal(params, levels, levels / 2, levels // 2)
    for code in {0, 1, levels // 2, levels - 1, int(exact.argmin()), *np.argsort(exact)[[9, 60, 200]].tolist()}:
        # Means are float32; and the probabilities of decisions have 24 bits, which unlikely ones feel.
        if exact[code] < 20:
            assert ideal.bits(code) == pytest.approx(exact[code], abs=1e-3 if exact[code] < 10 else 0.05), code
        ideal.comes_back(code)


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.floats(-(2.0**99), 2.0**99, width=32) | st.just(math.nan), min_size=51, max_size=51),
    st.sampled_from([3, 9, 48, 51]),
    st.sampled_from([8, 16, 24]),
    st.data(),
)
def test_any_parameters_give_probabilities(params, n, bits, data):
    """Also of more logistics than a vector has, and without a number among them."""
    levels = 1 << bits
    ideal = Ideal(torch.tensor(params[:n]), levels, data.draw(st.sampled_from([1.0, levels / 2])), levels // 2)
    code = data.draw(st.integers(0, levels - 1))
    assert 0 <= ideal.bits(code) <= bits * PRECISION + 1
    ideal.comes_back(code)


def test_eight_bits_sum_to_one():
    params = torch.tensor([0.3, -1.0, -0.2, 0.4, -3.0, -1.5], dtype=torch.float64)
    ideal = Ideal(params, 256, 128.0, 128)
    assert sum(2 ** -ideal.bits(code) for code in range(256)) == pytest.approx(1, abs=1e-9)


def as_documented(data: bytes, probabilities: list[int]) -> list[bool]:
    """docs/codec.md has these lines, for those who write a decoder."""
    decisions, code = [], iter(data)
    low, high, point = 0, 2**64 - 1, 0
    for _ in range(8):
        point = point << 8 | next(code, 0)
    for p in probabilities:
        middle = low + (high - low >> 24) * p
        upper = point > middle
        low, high = (middle + 1, high) if upper else (low, middle)
        while low >> 56 == high >> 56:
            low, high = low << 8 & 2**64 - 1, (high << 8 & 2**64 - 1) | 255
            point = (point << 8 & 2**64 - 1) | next(code, 0)
        decisions.append(upper)
    return decisions


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, WHOLE - 1) | st.just(WHOLE - 1) | st.just(1)), max_size=300))
def test_decisions_come_back_at_their_price(decisions):
    coder, data = range_coder.new_coders(1)[0], np.zeros(3 * len(decisions) + 16, np.uint8)
    at, ideal = 0, 0.0
    for upper, p in decisions:
        at = range_coder.encode(coder, data, at, upper, p)
        ideal -= math.log2((WHOLE - p if upper else p) / WHOLE)
    end = range_coder.finish(coder, data, at)
    assert 8 * end <= ideal + 64
    # Zeros are read behind the end, whatever stands there.
    data[end:] = 255
    coder = range_coder.new_coders(1)[0]
    at = range_coder.begin(coder, data, 0, end)
    for upper, p in decisions:
        decided, at = range_coder.decode(coder, data, at, end, p)
        assert decided == upper
    assert as_documented(data[:end].tobytes(), [p for _, p in decisions]) == [upper for upper, _ in decisions]


@pytest.mark.parametrize(
    "case",
    [
        *("mono-16-dml", "stereo-16-dml-coupled", "stereo-8-dml-coupled", "stereo-16-separate", "mono-8-categorical"),
        *("stereo-8-categorical-coupled", "stereo-16-categorical-coupled", "stereo-16-experts"),
        *("mono-16-experts-alone", "stereo-8-experts-alone"),
    ],
)
def test_code_length_is_that_of_the_likelihood(case):
    """The bytes of a recording, against the model's own log-probability."""
    model = small(case)
    frames = 40 if "16-categorical" in case else 400
    # Drawn from the model: what it holds for impossible costs less than it says, as no integer is 0.
    (drawn,) = Stream(model, 1, "reference").generate(frames, frames_at_once=frames)
    (data,) = Coders(model, model.spec.bits, model.spec.n_channels, 1)[model.spec.n_channels].encode(
        [drawn.codes[0].numpy()]
    )
    expected = -model.log_prob(drawn.codes).double().sum().item() / math.log(2)
    assert 8 * len(data) == pytest.approx(expected, rel=2e-3, abs=16)
