"""The golden kernels by the Triton programs; other backends are in `test_networks.py`."""

import pytest
import torch
from fixtures import DIAGONAL, LAYERS, load, state_of

from stereo_sashimi.interop import load_reference
from stereo_sashimi.ops.s4_response import KERNELS

pytest.importorskip("triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@torch.no_grad()
@pytest.mark.parametrize("name", LAYERS + DIAGONAL)
def test_kernel_by_triton(name):
    tensors, config = load(name)
    module = load_reference(state_of(tensors, "state.", torch.float64), config).to(DEVICE)
    golden = tensors["kernel_f64"][0]
    kernel = KERNELS["triton"](module.ssm.discretize(), golden.shape[-1], torch.float64)
    torch.testing.assert_close(kernel.cpu(), golden, rtol=0, atol=1e-9)
