"""The Triton programs: sums, gradients and whole kernels against torch's; they compile for GPUs; what is refused.

They run on a CUDA device if there is one, else under Triton's interpreter (tests/conftest.py): slow, so all is small.
"""

import pytest
import torch
from triton_compiler import run_with_compiler

from stereo_sashimi.nn.s4 import S4, S4Config, S4DConfig
from stereo_sashimi.ops.backend_error import BackendError
from stereo_sashimi.ops.discretize import Discrete
from stereo_sashimi.ops.kernels import cauchy, krylov, triton
from stereo_sashimi.ops.s4_response import KERNELS

pytest.importorskip("triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CONFIGS = {
    "dplr": S4Config(d_state=6),
    "bilinear": S4DConfig(d_state=6),
    "zoh": S4DConfig(d_state=6, discretization="zoh"),
}


def draw(rows: int, h: int, m: int, n_frequencies: int, seed: int = 0) -> list[torch.Tensor]:
    """v, a inside the unit circle, w on it, and a gradient of the sum."""
    g = torch.Generator().manual_seed(seed)
    v, a, grad = (
        torch.randn(shape, dtype=torch.complex128, generator=g)
        for shape in ((rows, h, m), (h, m), (rows, h, n_frequencies))
    )
    a = torch.polar(0.95 * torch.rand(a.shape, dtype=torch.float64, generator=g), a.angle())
    angles = torch.linspace(0, -torch.pi, n_frequencies, dtype=torch.float64)
    w = torch.polar(torch.ones_like(angles), angles)
    return [x.to(DEVICE) for x in (v, a, w, grad)]


def sums(function, v, a, w, grad):
    """The sum, and the gradients of v and a."""
    v, a = (x.detach().requires_grad_() for x in (v, a))
    out = function(v, a, w)
    return out.detach(), *torch.autograd.grad(out, (v, a), grad)


def assert_same(ours, expected, tolerance=1e-12, floor=0.0):
    """Within `tolerance` of the largest value, or of `floor` where all of them may be 0."""
    for value, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(value, other, rtol=0, atol=tolerance * max(other.abs().max().item(), floor))


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    """Programs of the backward pass walk 2 frequencies instead of 64: the interpreter walks them all, also beyond w."""
    usual = triton.MIN_STEPS
    monkeypatch.setattr(triton, "MIN_STEPS", 2)
    return usual


# A forward program has 128 frequencies, a backward program 32 modes and 2 frequencies (4 in the last but one case).
@pytest.mark.parametrize(
    ("rows", "h", "m", "n_frequencies"),
    [(1, 1, 1, 1), (1, 3, 5, 7), (3, 2, 3, 8), (4, 1, 33, 3)]
    + [pytest.param(*sizes, marks=pytest.mark.slow)
       for sizes in ((2, 1, 2, 9), (4, 2, 3, 17), (4, 1, 32, 1), (6, 2, 2, 5), (1, 1, 2, 128), (4, 1, 1, 129),
                     (1, 1, 65, 2))],
)  # fmt: skip
def test_sums_and_gradients_are_those_of_the_reference(rows, h, m, n_frequencies):
    given = draw(rows, h, m, n_frequencies)
    assert_same(sums(triton.triton_sum, *given), sums(cauchy.blocked_sum, *given))


@pytest.mark.slow
def test_how_frequencies_are_split_changes_nothing(monkeypatch, few_steps):
    """65 frequencies: 64 steps a program as usual, or 128 as there may be only one part."""
    given = draw(2, 1, 2, few_steps + 1)
    expected = sums(cauchy.blocked_sum, *given)
    monkeypatch.setattr(triton, "MIN_STEPS", few_steps)
    assert_same(sums(triton.triton_sum, *given), expected)
    monkeypatch.setattr(triton, "MAX_PARTS", 1)
    assert_same(sums(triton.triton_sum, *given), expected)


def test_conjugated_and_strided_arrays_are_read_right():
    v, a, w, grad = draw(4, 2, 3, 5)
    plain = sums(triton.triton_sum, v.conj().resolve_conj(), a, w, grad)
    assert v.conj().is_conj()
    strided = [x.mT.contiguous().mT for x in (v, a, grad)]
    assert not any(x.is_contiguous() for x in strided)
    assert_same(sums(triton.triton_sum, strided[0].conj(), strided[1], w, strided[2]), plain, tolerance=0)
    # Another order of the same numbers gives another sum.
    assert (plain[0] - triton.triton_sum(v, a, w)).abs().max() > 0.1


def test_next_to_the_unit_circle_no_digit_is_lost_twice():
    """1 - w a is 1e-5 for both of a conjugate pair: one quotient of their product would keep 6 digits."""
    a = torch.full((1, 1), 1 - 1e-5, dtype=torch.complex128, device=DEVICE)
    one = torch.ones(1, 1, 1, dtype=torch.complex128, device=DEVICE)
    exact = 2 / (1 - a.real.item())
    assert abs(triton.triton_sum(one, a, one[0, 0]).item() / exact - 1) < 1e-11


@pytest.mark.slow
def test_the_operator_keeps_torchs_rules():
    """Schema, shapes for fake tensors, registered gradient: what torch.compile relies on."""
    v, a, w, _ = draw(2, 1, 2, 3)
    torch.library.opcheck(triton._sum, (v.requires_grad_(), a.requires_grad_(), w))


@pytest.mark.parametrize("length", [1, 2, pytest.param(47, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", list(CONFIGS))
def test_kernels_and_gradients_of_all_fields_are_those_of_the_products(kind, length):
    torch.manual_seed(0)
    fields = [x for x in CONFIGS[kind].build(2).double().discretize() if x is not None]
    results = []
    for kernel in (KERNELS["triton"], krylov.kernel):
        leaves = [x.detach().to(DEVICE).requires_grad_() for x in fields]
        value = kernel(Discrete(*leaves), length, torch.float64)
        assert value.shape == (2, length)
        loss = (value * torch.arange(1, 1 + length, device=DEVICE)).sum()
        results.append([value.detach(), *torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)])
    assert len(fields) == (5 if kind == "dplr" else 3)
    assert_same(*results, tolerance=1e-9, floor=1.0)


@pytest.mark.parametrize("kind", ["dplr", "zoh"])
def test_a_layer_learns_the_same(kind):
    x = torch.randn(2, 11, 2, device=DEVICE)
    results = []
    for name in ("triton", "reference"):
        torch.manual_seed(0)
        layer = S4(2, CONFIGS[kind], backend=name).to(DEVICE)
        y, _ = layer(x)
        y.square().sum().backward()
        results.append([y.detach(), *(p.grad for p in layer.parameters())])
    assert len(results[0]) > 5
    assert_same(*results, tolerance=1e-5)


COMPILE = """
import sys
from stereo_sashimi.ops.s4_response import resolve
# torch imports Triton by itself, with its compiler.
assert resolve("auto") and "stereo_sashimi.ops.kernels.triton_programs" not in sys.modules, "imported too early"
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from stereo_sashimi.ops.kernels import triton as launches, triton_programs as programs
assert not programs.INTERPRETED
for program, sizes in ((programs.forward, {"BLOCK": 128}), (programs.backward, {"BLOCK": 32, "STEPS": 64})):
    # Triton takes an argument that is 1 for a constant.
    for rows, known in ((4, {}), (1, {"channels": 1, "frequencies": 1})):
        constants = {"ROWS": rows, "MODES": 32, **sizes, **known}
        types = {name: "constexpr" if name in constants else "*fp64" for name in program.arg_names}
        types |= {name: "i32" for name in ("channels", "frequencies") if name not in constants}
        options = {"num_warps": sizes["BLOCK"] // 32, **launches.OPTIONS}
        built = triton.compile(ASTSource(program, types, constants), GPUTarget("cuda", 90, 32), options)
        ptx = built.asm["ptx"]
        assert ptx.count("div.rn.f64") == 1, "one division for both quotients"
        assert "atom." not in ptx and "bar.sync" not in ptx, "threads do not meet"
        assert ".f32" not in ptx, "all float64"
        assert built.metadata.shared == 0
        assert len(built.asm["cubin"]) > 1000
"""


@pytest.mark.slow
def test_triton_is_imported_late_and_compiles_for_a_gpu_that_is_not_there(tmp_path):
    run_with_compiler(COMPILE, tmp_path)


def test_other_precisions_are_refused():
    v, a, w, _ = draw(1, 1, 1, 1)
    with pytest.raises(ValueError, match=r"a must be complex128.*got torch.complex64"):
        triton.triton_sum(v, a.to(torch.complex64), w)


def test_a_model_on_another_device_is_refused(monkeypatch):
    monkeypatch.setattr(triton, "interpreted", lambda: False)
    with pytest.raises(BackendError, match=r"CUDA device; the model is on cpu.*backend=auto"):
        triton.triton_sum(*(x.cpu() for x in draw(1, 1, 1, 1)[:3]))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", [S4Config(), S4DConfig()], ids=["s4", "s4d"])
@pytest.mark.parametrize("length", [8191, 65536])
def test_full_size_kernels_on_a_gpu_agree_repeat_and_stay_small(kind, length):
    """64 channels: values and gradients of the products in float64, the same bits twice, no Cauchy matrix stored."""
    h, m = 64, kind.d_state // 2
    layer = kind.build(h).double().cuda()
    weight = torch.randn(h, length, dtype=torch.float64, device="cuda")

    def run(kernel):
        layer.zero_grad()
        value = kernel(layer.discretize(), length, torch.float64)
        (value * weight).sum().backward()
        return [value.detach(), *(p.grad.clone() for p in layer.parameters())]

    expected = run(krylov.kernel)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    ours = run(KERNELS["triton"])
    matrix = h * m * (length // 2 + 1) * 16
    assert torch.cuda.max_memory_allocated() - before < matrix
    assert_same(ours, expected, tolerance=1e-8)
    assert all(torch.equal(x, y) for x, y in zip(ours, run(KERNELS["triton"]), strict=True))
