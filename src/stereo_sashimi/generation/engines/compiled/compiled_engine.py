"""CompiledEngine: the whole step in loops that numba compiles, on a CPU in float32; no compiler is needed.

`pack.py` lays a model's weights and the order of its operations out, `loops.py` runs them frame by frame through the
functions of `layers.py` and `draws.py`. Rows of a batch go to as many threads as torch uses, each through all frames;
nothing that is computed for a row depends on the others, so a batch gives to the bit what its rows give alone.
"""

from itertools import pairwise
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from stereo_sashimi.distributions.sampler import Sampler
from stereo_sashimi.generation.engines.compiled import step as loops
from stereo_sashimi.generation.engines.compiled.program import Packed, pack
from stereo_sashimi.generation.engines.compiled.row_state import read_states, write_states
from stereo_sashimi.generation.engines.compiled.sampling_numbers import numbers
from stereo_sashimi.generation.engines.engine import Engine, EngineError, EngineState, Frames, check_finite
from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.models.sashimi import SashimiState
from stereo_sashimi.ops.cpu.threads import for_each
from stereo_sashimi.ops.cpu.vector import is_kept


class CompiledEngine(Engine):
    """See above. `Stream` checks codes and states; there are no bounds checks here."""

    name: ClassVar[str] = "compiled"

    @classmethod
    def check(cls, model: LanguageModel) -> None:
        """Raise EngineError unless all parameters are float32 on a CPU."""
        for parameter in model.parameters():
            if parameter.device.type != "cpu":
                raise EngineError(
                    f"engine=compiled runs on a CPU, and this model is on {parameter.device}. Use device=cpu, or "
                    "engine=auto."
                )
            if parameter.dtype != torch.float32:
                raise EngineError(
                    f"engine=compiled computes in float32, and this model has {parameter.dtype} parameters. Convert "
                    "it with model.float(), or use engine=reference."
                )

    @classmethod
    def preparation(cls) -> str | None:
        """Compiling, where that was not done before."""
        return None if is_kept(loops.run) else "compiling its loops for this machine, once, for some 15 seconds"

    def __init__(self, model: LanguageModel, batch_size: int, packed: Packed | None = None) -> None:
        super().__init__(model, batch_size)
        self.packed = pack(model) if packed is None else packed
        self._rows = batch_size * model.n_sequences
        self._memory = torch.zeros(self._rows * self.packed.size).numpy()
        self._phase = 0

    def like(self, batch_size: int) -> "CompiledEngine":
        """Another one with the same packed weights."""
        return CompiledEngine(self.model, batch_size, self.packed)

    def step(self, codes: Int64[Tensor, "batch length channels"]) -> Float[Tensor, "rows length width"]:
        """Feed known frames one by one. Codes that the model does not have would be read from anywhere."""
        rows = self.model.fold(codes).contiguous()
        hidden = torch.empty(self._rows, codes.shape[1], self.model.backbone.width)
        self._run(rows, torch.zeros(self._rows, 0, 1, 1, dtype=torch.float64), Sampler(), hidden)
        return hidden

    def draw(self, sampler: Sampler, uniforms: Float64[Tensor, "batch length channels n_uniforms"]) -> Frames:
        """Draw by the functions of `draws.py`."""
        folded = self.model.fold(uniforms).contiguous()
        codes = torch.empty(folded.shape[:3], dtype=torch.int64)
        log_prob = self._run(codes, folded, sampler, torch.empty(self._rows, 0, 1))
        return Frames(self.model.unfold(codes), self.model.unfold(log_prob))

    def state(self) -> EngineState:
        """A copy of what the rows carry."""
        states = read_states(self._memory.reshape(self._rows, -1), self.packed.slots, self._phase)
        hidden = torch.from_numpy(self._memory.reshape(self._rows, -1)[:, None, : self.model.backbone.width].copy())
        return EngineState(SashimiState(self._phase, states), hidden)

    def restore(self, state: EngineState) -> None:
        """Go on from there."""
        memory, (phase, states) = self._memory.reshape(self._rows, -1), state.backbone
        self._phase = phase
        write_states(memory, self.packed.slots, phase, states)
        memory[:, : self.model.backbone.width] = state.hidden.squeeze(1).numpy()
        loops.make_ready(self.packed.plan, self.packed.weights, self._memory, self.packed.size, self._rows)

    def _run(self, codes: Tensor, uniforms: Tensor, sampler: Sampler, hidden: Tensor) -> Tensor:
        packed, sampling, log_prob = self.packed, numbers(sampler), torch.zeros(codes.shape)

        def run(first: int, last: int) -> None:
            loops.run(
                *(packed.plan, packed.weights, packed.epsilons, packed.tables, packed.embedding, packed.head),
                *(packed.mixers, self._memory, packed.size, first, last, self._phase, codes.numpy()),
                *(uniforms.numpy(), sampling, log_prob.numpy(), hidden.numpy()),
            )

        threads = min(torch.get_num_threads(), self._rows)
        bounds = [self._rows * i // threads for i in range(threads + 1)]
        for_each(run, list(pairwise(bounds)))
        features = self._memory.reshape(self._rows, -1)[:, : self.model.backbone.width]
        check_finite(bool(np.isfinite(features).all()) and bool(log_prob.isfinite().all()))
        self._phase = (self._phase + codes.shape[1]) % self.model.backbone.stride
        return log_prob
