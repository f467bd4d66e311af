"""The Triton programs of one frame: the S4 step and the DML draw against torch's; they compile for GPUs.

They run on a CUDA device if there is one, else under Triton's interpreter (tests/conftest.py): slow, so all is small.
"""

import pytest
import torch
from triton_compiler import run_with_compiler

from stereo_sashimi.distributions import logistic_mixture as dml
from stereo_sashimi.distributions.sampler import Sampler
from stereo_sashimi.nn.s4 import S4, S4Config, S4DConfig
from stereo_sashimi.ops.backend_error import BackendError
from stereo_sashimi.ops.kernels import triton_step
from stereo_sashimi.ops.s4_response import step

pytest.importorskip("triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-13}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("d_state", [2, 6, 68])
@pytest.mark.parametrize("config", [S4Config, S4DConfig])
@torch.no_grad()
def test_steps_are_those_of_the_recurrence(config, d_state, dtype):
    """Three in a row, as a wrong state shows in the next output only."""
    torch.manual_seed(0)
    layer = S4(3, config(d_state=d_state, dt_max=1.0)).to(DEVICE, dtype)
    ssm = layer.ssm.discretize().to(dtype.to_complex())
    state = torch.randn(2, 3, d_state // 2, dtype=dtype.to_complex(), device=DEVICE)
    ours, packed = state.clone(), triton_step.pack(ssm)
    for u in torch.randn(3, 2, 3, dtype=dtype, device=DEVICE):
        y, state = step(ssm, u, state)
        expected = torch.nn.functional.gelu(y + layer.D * u)
        actual = triton_step.s4_step(packed, layer.D, u, ours)
        scale = state.abs().max().item() + expected.abs().max().item()
        torch.testing.assert_close(actual, expected, rtol=0, atol=TOLERANCE[dtype] * scale)
        torch.testing.assert_close(ours, state, rtol=0, atol=TOLERANCE[dtype] * scale)


def test_a_state_that_cannot_be_overwritten_is_refused():
    layer = S4(3, S4Config(d_state=4)).to(DEVICE)
    packed = triton_step.pack(layer.ssm.discretize().to(torch.complex64))
    u, state = torch.randn(2, 3, device=DEVICE), torch.zeros(2, 2, 3, dtype=torch.complex64, device=DEVICE).mT
    for wrong in (state, state.contiguous().conj()):
        with pytest.raises(ValueError, match="contiguous"):
            triton_step.s4_step(packed, layer.D, u, wrong)


def drawn(params, uniform, n_levels, mixture_temperature, scale_temperature):
    """Codes and log-probabilities of the program, and those of the distribution."""
    sampler = Sampler(mixture_temperature=mixture_temperature, scale_temperature=scale_temperature)
    bounds = dml.MEAN_LSB, dml.LOG_SCALE_LSB
    ours = triton_step.dml_draw(params, uniform, n_levels, mixture_temperature, scale_temperature, *bounds)
    codes = dml.sample(params, n_levels, uniform, sampler)
    return ours, (codes, dml.log_prob(params, codes, n_levels))


@pytest.mark.parametrize("temperatures", [(1.0, 1.0), (0.3, 0.7), (0.0, 0.0), (0.0, 1.3), (2.0, 0.0)], ids=str)
@pytest.mark.parametrize(
    ("n_mixtures", "n_levels", "dtype"),
    [
        (1, 256, torch.float64),
        (10, 65536, torch.float32),
        pytest.param(5, 256, torch.float32, marks=pytest.mark.slow),
        pytest.param(10, 65536, torch.float64, marks=pytest.mark.slow),
    ],
)
def test_draws_and_their_probabilities_are_those_of_the_distribution(n_mixtures, n_levels, temperatures, dtype):
    g = torch.Generator().manual_seed(n_mixtures)
    spread = torch.tensor([2.0, 0.5, 2.0], dtype=dtype).repeat_interleave(n_mixtures)
    centre = torch.tensor([0.0, 0.0, -4.0], dtype=dtype).repeat_interleave(n_mixtures)
    params = (torch.randn(16, 3 * n_mixtures, dtype=dtype, generator=g) * spread + centre).to(DEVICE)
    uniform = torch.rand(16, 2, dtype=torch.float64, generator=g).to(DEVICE)
    (codes, log_prob), (expected_codes, expected) = drawn(params, uniform, n_levels, *temperatures)
    assert torch.equal(codes, expected_codes)
    assert len(codes.unique()) > 5
    torch.testing.assert_close(log_prob, expected, rtol=TOLERANCE[dtype], atol=10 * TOLERANCE[dtype])


def edges(dtype):
    """Parameters and numbers at the ends of their ranges: runaway, one LSB and less, all mass at an end."""
    rows = []
    for mean in (-1e12, -1.0, 0.0, 1 - 2 / 256, 1e12):
        for log_scale in (-300.0, -14.0, -6.0, 5.0, 300.0):
            rows += [[0.0, -80.0, mean, 0.5, log_scale, -3.0], [-80.0, 0.0, 0.5, mean, -3.0, log_scale]]
    params = torch.tensor(rows, dtype=dtype, device=DEVICE)
    least, most = 2.0**-53, 1 - 2.0**-53
    uniform = torch.tensor([[0.0, 0.0], [most, least], [0.5, most]], dtype=torch.float64, device=DEVICE)
    return params.repeat_interleave(len(uniform), 0), uniform.repeat(len(params), 1)


@pytest.mark.slow
def test_the_ends_of_all_ranges_are_drawn_and_scored_alike():
    params, uniform = edges(torch.float64)
    (codes, log_prob), (expected_codes, expected) = drawn(params, uniform, 256, 1.0, 1.0)
    assert torch.equal(codes, expected_codes)
    assert {0, 255} <= set(codes.tolist())
    assert log_prob.isfinite().all()
    torch.testing.assert_close(log_prob, expected, rtol=1e-11, atol=1e-11)


def test_wide_logistics_lose_no_digits():
    """A cell's share of a logistic 1e8 LSB wide is 2.5e-9: 1 - exp(-w) would keep 8 digits."""
    params = torch.tensor([[0.0, 0.0, 12.0]], dtype=torch.float64, device=DEVICE)
    uniform = torch.full((1, 2), 0.5, dtype=torch.float64, device=DEVICE)
    (_, log_prob), (_, expected) = drawn(params, uniform, 65536, 1.0, 0.0)
    torch.testing.assert_close(log_prob, expected, rtol=1e-14, atol=0)


@torch.no_grad()
def test_the_operators_keep_torchs_rules():
    """Schema, what is overwritten, shapes for meta tensors."""
    layer = S4(2, S4Config(d_state=4)).to(DEVICE)
    packed = triton_step.pack(layer.ssm.discretize().to(torch.complex64))
    state = torch.zeros(1, 2, 2, dtype=torch.complex64, device=DEVICE)
    torch.library.opcheck(triton_step._s4_step, (*packed, layer.D.detach(), torch.randn(1, 2, device=DEVICE), state))
    params, uniform = torch.randn(2, 6, device=DEVICE), torch.rand(2, 2, dtype=torch.float64, device=DEVICE)
    arguments = (params, uniform, 256, [1.0, 1.0], list(dml.MEAN_LSB), list(dml.LOG_SCALE_LSB))
    torch.library.opcheck(triton_step._dml_draw, arguments)


def test_a_model_on_another_device_is_refused(monkeypatch):
    monkeypatch.setattr(triton_step.triton, "interpreted", lambda: False)
    with pytest.raises(BackendError, match=r"CUDA device; the model is on cpu.*engine=auto"):
        drawn(torch.zeros(1, 3), torch.zeros(1, 2, dtype=torch.float64), 256, 1.0, 1.0)


COMPILE = """
import math, sys
import stereo_sashimi.generation.engines.cuda_graph
assert "stereo_sashimi.ops.kernels.triton_step_programs" not in sys.modules, "imported before it is asked for"
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from stereo_sashimi.ops.kernels import triton_step, triton_step_programs as programs
assert not triton_step.triton.interpreted()

def compile(program, constants, types):
    warps = constants.pop("num_warps")
    types = {name: "constexpr" if name in constants else types.get(name, FLOAT) for name in program.arg_names}
    options = {"num_warps": warps, **triton_step.triton.OPTIONS}
    built = triton.compile(ASTSource(program, types, constants), GPUTarget("cuda", 90, 32), options)
    assert "atom." not in built.asm["ptx"]
    assert len(built.asm["cubin"]) > 1000
    return built.asm["ptx"]

for FLOAT in ("*fp32", "*fp64"):
    for modes, rank_one in ((32, True), (128, False)):
        constants = {"MODES": modes, "RANK_ONE": rank_one, **triton_step._block(modes)}
        ptx = compile(programs.s4_step, constants, {"channels": "i32"})
        assert (".f64" in ptx) == (FLOAT == "*fp64"), "one precision throughout"
        assert ("bar.sync" in ptx) == (modes > 32), "a warp by itself does not wait"
    for temperatures in ((1.0, 1.0), (0.0, 0.7)):
        constants = {"MIXTURES": 10, **triton_step._block(10), "LEVELS": 65536, "LOG_HALF": math.log(32768),
                     "MIXTURE_TEMPERATURE": temperatures[0], "SCALE_TEMPERATURE": temperatures[1],
                     "MEAN_LOW": -1e9, "MEAN_HIGH": 1e9, "SCALE_LOW": math.log(1e-5), "SCALE_HIGH": math.log(1e8)}
        compile(programs.dml_draw, constants, {"uniform": "*fp64", "codes": "*i64"})
"""


@pytest.mark.slow
def test_triton_is_imported_late_and_compiles_for_a_gpu_that_is_not_there(tmp_path):
    run_with_compiler(COMPILE, tmp_path)
