"""Every network of the golden files: convolution, step, any chunking, kernels, discretised matrices, gradients."""

from importlib.util import find_spec

import pytest
import torch
from fixtures import DIAGONAL, LAYERS, NETWORKS, load, state_of

from stereo_sashimi.interop import load_reference
from stereo_sashimi.interop.reference import build, convert
from stereo_sashimi.ops.s4_response import KERNELS

ATOL = {torch.float64: 1e-9, torch.float32: 1e-4}
PREFIXES = [(name, "state.") for name in NETWORKS] + [
    (name, "state_after.")
    for name in ("a1_s4_dplr_tied_raw", "a3_s4_dplr_untied_exp_grow", "c1_sashimi_modular_p44_raw")
]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])
@pytest.mark.parametrize(("name", "prefix"), PREFIXES)
def test_convolution(name, prefix, dtype):
    tensors, config = load(name)
    state = state_of(tensors, "state.", dtype) | state_of(tensors, prefix, dtype)
    module = load_reference(state, config)
    y, none = module(tensors["x"].to(dtype))
    assert none is None
    # state_after was rounded to float32 by the original after its own conversion of C.
    atol = ATOL[dtype] if prefix == "state." else 1e-4
    torch.testing.assert_close(y.double(), tensors["y_f64"], rtol=0, atol=atol)


@pytest.mark.parametrize("name", NETWORKS)
def test_loaded_in_float32_and_made_double(name):
    """The plain C that the original does not store keeps the digits that float32 drops."""
    tensors, config = load(name)
    module = load_reference(state_of(tensors, "state.", torch.float32), config)
    torch.testing.assert_close(module.double()(tensors["x"].double())[0], tensors["y_f64"], rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "dtype", [torch.float64, pytest.param(torch.float32, marks=pytest.mark.slow)], ids=["f64", "f32"]
)
@pytest.mark.parametrize("name", NETWORKS)
def test_step(name, dtype):
    tensors, config = load(name)
    module = load_reference(state_of(tensors, "state.", dtype), config)
    x = tensors["x"].to(dtype)
    state, outputs = module.initial_state(x.shape[0]), []
    with torch.no_grad():
        for frame in x.split(1, dim=1):
            y, state = module(frame, state)
            outputs.append(y)
    torch.testing.assert_close(torch.cat(outputs, 1).double(), tensors["y_step_f64"], rtol=0, atol=ATOL[dtype])


no_triton = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")


@torch.no_grad()
@pytest.mark.parametrize("backend", ["krylov", "reference", pytest.param("triton", marks=no_triton)])
@pytest.mark.parametrize("name", LAYERS + DIAGONAL)
def test_kernel(name, backend):
    tensors, config = load(name)
    module = load_reference(state_of(tensors, "state.", torch.float64), config)
    if backend == "triton" and torch.cuda.is_available():
        module = module.cuda()
    golden = tensors["kernel_f64"][0]
    kernel = KERNELS[backend](module.ssm.discretize(), golden.shape[-1], torch.float64)
    torch.testing.assert_close(kernel.cpu(), golden, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", LAYERS + DIAGONAL)
def test_discretised_matrices(name):
    tensors, config = load(name)
    ssm = load_reference(state_of(tensors, "state.", torch.float64), config).ssm.discretize()
    a, b, c = (torch.view_as_complex(tensors[key].contiguous()) for key in ("dA_f64", "dB_f64", "dC_f64"))
    if ssm.left is None:
        torch.testing.assert_close(ssm.a, a, rtol=0, atol=1e-12)
        torch.testing.assert_close(ssm.b, b, rtol=0, atol=1e-12)
        torch.testing.assert_close(ssm.c, c[0], rtol=0, atol=1e-9)
        return

    def full(x):
        return torch.cat([x, x.conj()], dim=-1)

    ours = torch.diag_embed(full(ssm.a)) + full(ssm.left).unsqueeze(-1) * full(ssm.right).unsqueeze(-2)
    torch.testing.assert_close(ours, a, rtol=0, atol=1e-12)
    torch.testing.assert_close(full(ssm.b), b, rtol=0, atol=1e-12)
    torch.testing.assert_close(full(ssm.c), c[0], rtol=0, atol=1e-9)


def _with_gradients():
    return [name for name in NETWORKS if "grad_x" in load(name)[0]]


@pytest.mark.parametrize("name", _with_gradients())
def test_gradients(name):
    """Gradients with respect to the original's own parameters (its C is stored for one length)."""
    tensors, config = load(name)
    state = {
        key: value.requires_grad_() if value.is_floating_point() else value
        for key, value in state_of(tensors, "state.", torch.float64).items()
    }
    x = tensors["x"].double().requires_grad_()
    module = build(config).double().eval()
    y, _ = torch.func.functional_call(module, convert(state, config), (x,))
    loss = (y * tensors["grad_w"].double()).sum()
    torch.testing.assert_close(loss.reshape(1), tensors["loss_f64"], rtol=1e-9, atol=1e-9)
    loss.backward()
    compared = 0
    for key, golden in tensors.items():
        if key.startswith("grad."):
            ours = state[key.removeprefix("grad.")].grad
            torch.testing.assert_close(ours.float(), golden, rtol=1e-4, atol=1e-5 * golden.abs().max().item(), msg=key)
            compared += 1
    torch.testing.assert_close(x.grad.float(), tensors["grad_x"], rtol=1e-4, atol=1e-5)
    assert compared > 5
