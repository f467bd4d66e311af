"""fuse: a frozen model whose single steps take few GPU kernels, by the programs of `ops/kernels/triton_step.py`.

Of a frame's time on a GPU nearly all is launches, one after the other. This is for one frame at a time only.
"""

import copy

from jaxtyping import Complex, Float
from torch import Tensor, nn

from stereo_sashimi.distributions import logistic_mixture as dml
from stereo_sashimi.distributions.sampler import Sampler
from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.nn.block import Residual
from stereo_sashimi.nn.heads.logistic_mixture_head import DMLHead
from stereo_sashimi.nn.module import StatefulModule
from stereo_sashimi.nn.s4 import S4
from stereo_sashimi.ops.kernels import triton_step


class FusedS4(StatefulModule):
    """A frozen S4 layer for single frames. It overwrites the state that it is given, and returns that very tensor.

    Shares its parameters with `layer`.
    """

    def __init__(self, layer: S4) -> None:
        super().__init__()
        self.D, self.output = layer.D, layer.output
        self.packed = triton_step.pack(layer.ssm.discretize().to(layer.D.dtype.to_complex()))

    def initial_state(self, batch_size: int) -> Complex[Tensor, "batch d_model m"]:
        """A state at rest."""
        return self.packed.c.new_zeros(batch_size, *self.packed.c.shape)

    def forward(
        self, u: Float[Tensor, "batch 1 d_model"], state: Complex[Tensor, "batch d_model m"]
    ) -> tuple[Float[Tensor, "batch 1 d_model"], Complex[Tensor, "batch d_model m"]]:
        """One frame."""
        y = triton_step.s4_step(self.packed, self.D, u.squeeze(1), state).unsqueeze(1)
        return nn.functional.glu(self.output(y), dim=-1), state


class FusedDMLHead(DMLHead):
    """A DML head that draws and scores in one program. Shares everything with `head`."""

    def __init__(self, head: DMLHead) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(head.__dict__)

    def _sample_channel(self, params: Tensor, uniform: Tensor, sampler: Sampler) -> tuple[Tensor, Tensor]:
        codes, log_prob = triton_step.dml_draw(
            params.flatten(0, 1),
            uniform.flatten(0, 1),
            self.n_levels,
            sampler.of_mixture,
            sampler.of_scale,
            dml.MEAN_LSB,
            dml.LOG_SCALE_LSB,
        )
        shape = params.shape[:2]
        return codes.unflatten(0, shape), log_prob.unflatten(0, shape)


def fuse(model: LanguageModel) -> LanguageModel:
    """A model for single frames that shares the parameters of `model`, which must be frozen (`nn.freeze`)."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    fused = copy.deepcopy(model, shared)
    for module in list(fused.modules()):
        if isinstance(module, Residual) and isinstance(module.layer, S4):
            module.layer = FusedS4(module.layer)
    if isinstance(fused.head, DMLHead):
        fused.head = FusedDMLHead(fused.head)
    return fused
