"""The recurrence of one S4 layer: one step, a loop over steps, and a segment of any length at once.

Symbols are those of `discretize.py`; convolution kernels are in `kernels/`, the FFT convolution in `fftconv.py`.
"""

from collections.abc import Callable

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from stereo_sashimi.ops.cpu import scan as recurrent
from stereo_sashimi.ops.discretize import Discrete
from stereo_sashimi.ops.fftconv import causal_convolution
from stereo_sashimi.ops.kernels import krylov


def step(
    ssm: Discrete, u: Float[Tensor, "batch h"], state: Complex[Tensor, "batch h m"]
) -> tuple[Float[Tensor, "batch h"], Complex[Tensor, "batch h m"]]:
    """One step of the recurrence, O(d_state) a channel: returns the output (it reads the new state) and the state."""
    new = ssm.a * state + ssm.b * u.unsqueeze(-1)
    if ssm.left is not None and ssm.right is not None:
        new = new + ssm.left * (2 * (ssm.right * state).real.sum(-1, keepdim=True))
    return 2 * (ssm.c * new).real.sum(-1), new


def recurrence(
    ssm: Discrete, u: Float[Tensor, "batch h length"], state: Complex[Tensor, "batch h m"]
) -> tuple[Float[Tensor, "batch h length"], Complex[Tensor, "batch h m"]]:
    """Step through a segment: the definition that `advance` and every kernel are tested against."""
    outputs = []
    for u_t in u.unbind(-1):
        y_t, state = step(ssm, u_t, state)
        outputs.append(y_t)
    return (torch.stack(outputs, dim=-1) if outputs else torch.zeros_like(u)), state


def advance(
    ssm: Discrete,
    kernel: Float[Tensor, "h length"],
    u: Float[Tensor, "batch h length"],
    state: Complex[Tensor, "batch h m"],
) -> tuple[Float[Tensor, "batch h length"], Complex[Tensor, "batch h m"]]:
    """A segment of any length at once: convolution, plus what the carried state still rings, plus the next state."""
    response, state_after = krylov.carry(ssm, u, state)
    return causal_convolution(u, kernel) + response, state_after


def respond(
    ssm: Discrete,
    u: Float[Tensor, "batch length h"],
    state: Complex[Tensor, "batch h m"] | None,
    kernel: Callable[[Discrete, int, torch.dtype], Tensor],
    stepped: bool,
) -> tuple[Float[Tensor, "batch length h"], Complex[Tensor, "batch h m"] | None]:
    """The output for a segment from `state`, or from rest; `None` in gives `None` out.

    - `ssm`: best in float64 (`SSM.discretize`). `kernel`: computes convolution kernels.
    - `stepped`: go through the frames one by one instead.
    """
    dtype, length = u.dtype, u.shape[1]
    if stepped and length > 1:
        y, after = recurrent.scan(ssm, u, state)
        return y, None if state is None else after
    if state is None:
        return causal_convolution(u.mT, kernel(ssm, length, dtype)).mT, None
    if length == 0:
        return u, state
    if length == 1:
        y, after = step(ssm.to(state.dtype), u.squeeze(1), state)
        return y.unsqueeze(1), after
    y, after = advance(ssm, kernel(ssm, length, dtype), u.mT, state)
    return y.mT, after
