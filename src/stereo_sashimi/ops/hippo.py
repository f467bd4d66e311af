"""HiPPO-LegS and the S4D initialisations: the matrices that `nn/s4.py` starts from, in float64.

Legend (N = d_state, M = N/2 representatives of conjugate pairs):
  A, B    HiPPO-LegS, A_nk = -sqrt((2n+1)(2k+1)) below the diagonal, -(n+1) on it (Gu et al. 2020, HiPPO, eq. 2)
  P       rank-1 correction: A + P P^T = -I/2 + skew-symmetric (Gu et al. 2022, S4, appendix C.1)
  Lambda  eigenvalues of A + P P^T with negative imaginary part, most negative first
"""

import math

import torch
from jaxtyping import Complex128, Float64
from torch import Tensor


def legs(d_state: int) -> tuple[Float64[Tensor, "n n"], Float64[Tensor, " n"], Float64[Tensor, " n"]]:
    """HiPPO-LegS (A, B, P) for a state of size `d_state`."""
    root = torch.sqrt(2 * torch.arange(d_state, dtype=torch.float64) + 1)
    below = torch.tril(torch.outer(root, root), diagonal=-1)
    a_matrix = -below - torch.diag(torch.arange(1, d_state + 1, dtype=torch.float64))
    return a_matrix, root, root / math.sqrt(2)


def legs_dplr(
    d_state: int,
) -> tuple[Complex128[Tensor, " m"], Complex128[Tensor, " m"], Complex128[Tensor, " m"]]:
    """LegS in diagonal plus low-rank form: (Lambda, P, B) with A = diag(Lambda) - P P^* on conjugate pairs.

    Each eigenvector's phase is free. Here it makes every P_n real and positive; because B = sqrt(2) P for LegS,
    B comes out real too. The original implementation keeps LAPACK's phases and clips Im(B) to [-2, 2], which
    depends on the library; with this choice there is nothing to clip (docs/adr/0002).
    """
    a_matrix, b, p = legs(d_state)
    normal = a_matrix + torch.outer(p, p)
    # A + P P^T = -I/2 + S with S skew-symmetric, so -i S is Hermitian: a stable solver and a unitary basis.
    skew = normal - torch.diag(torch.diagonal(normal))
    imag, vectors = torch.linalg.eigh(-1j * skew)
    half = d_state // 2
    imag, vectors = imag[:half], vectors[:, :half]
    lam = torch.complex(torch.diagonal(normal).mean().expand(half).clone(), imag)
    p_modes = vectors.mH @ p.to(vectors.dtype)
    b_modes = vectors.mH @ b.to(vectors.dtype)
    phase = p_modes.conj() / p_modes.abs()
    return lam, p_modes * phase, b_modes * phase


def s4d_lin(d_state: int) -> Complex128[Tensor, " m"]:
    """S4D-Lin eigenvalues, -1/2 - i pi n (Gu et al. 2022, S4D, eq. 9; the sign is our half of each pair)."""
    n = torch.arange(d_state // 2, dtype=torch.float64)
    return torch.complex(torch.full_like(n, -0.5), -math.pi * n)


def s4d_inv(d_state: int) -> Complex128[Tensor, " m"]:
    """S4D-Inv eigenvalues, -1/2 - i (N/pi) (N/(2n+1) - 1) (Gu et al. 2022, S4D, eq. 8)."""
    n = torch.arange(d_state // 2, dtype=torch.float64)
    return torch.complex(torch.full_like(n, -0.5), -(d_state / math.pi) * (d_state / (2 * n + 1) - 1))
