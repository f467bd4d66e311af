"""Golden h: HiPPO-LegS and the S4D initialisations, up to the free phase of each eigenvector."""

import pytest
import torch
from fixtures import load

from stereo_sashimi.ops import hippo

GOLDEN, _ = load("h_hippo_init")


@pytest.mark.parametrize("n", [4, 8, 64])
def test_legs(n):
    a, b, p = hippo.legs(n)
    for ours, key in ((a, "legs_A"), (b, "legs_B"), (p, "legs_P_real")):
        torch.testing.assert_close(ours, GOLDEN[f"N{n}.{key}"].reshape(ours.shape), rtol=0, atol=1e-12)


@pytest.mark.parametrize("n", [4, 8, 64])
def test_diagonal_plus_low_rank(n):
    lam, p, b = hippo.legs_dplr(n)
    golden_lam, golden_p, golden_b = (
        torch.view_as_complex(GOLDEN[f"N{n}.nplr_f64.{key}"]).reshape(-1) for key in ("Lambda", "P", "B_noclip")
    )
    torch.testing.assert_close(lam, golden_lam, rtol=0, atol=1e-8)
    torch.testing.assert_close(p.abs(), golden_p.abs(), rtol=0, atol=1e-9)
    torch.testing.assert_close(b.abs(), golden_b.abs(), rtol=0, atol=1e-9)
    torch.testing.assert_close(p.conj() * b, golden_p.conj() * golden_b, rtol=0, atol=1e-9)


@pytest.mark.parametrize("n", [4, 8, 64])
def test_diagonal(n):
    for ours, key in ((hippo.s4d_lin(n), "diag-lin"), (hippo.s4d_inv(n), "diag-inv")):
        golden = torch.view_as_complex(GOLDEN[f"N{n}.{key}.A"]).reshape(-1).to(torch.complex128)
        torch.testing.assert_close(ours, golden, rtol=1e-6, atol=1e-6)
