"""CompiledEngine: the whole step in loops that numba compiles, on a CPU in float32; no compiler need be installed.

`pack.py` makes a `Program` of a model, `draw.py` runs it frame by frame and draws, `step.py` has the backbone. Rows of
a batch go to as many threads as torch uses, each through all frames; nothing that is computed for a row depends on the
others, so a batch gives to the bit what its rows give alone.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from stereo_sashimi.distributions.sampler import Sampler
from stereo_sashimi.generation.engines.compiled import draw as loops
from stereo_sashimi.generation.engines.compiled.experts_step import tell_experts  # and gives the loops their experts
from stereo_sashimi.generation.engines.compiled.pack import Packed, pack
from stereo_sashimi.generation.engines.compiled.program import Program, Rows, sampling_of
from stereo_sashimi.generation.engines.compiled.step import make_ready
from stereo_sashimi.generation.engines.engine import Engine, EngineError, EngineState, Frames, NonFiniteOutputError
from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.models.sashimi import SashimiState
from stereo_sashimi.ops.cpu.scan import for_each
from stereo_sashimi.ops.cpu.vector import is_kept


class CompiledEngine(Engine):
    """See above. `Stream` checks codes and states; there are no bounds checks here.

    Attributes:
        program: the model, for compiled loops.
        n_rows: recurrences, `n_sequences` a clip.
    """

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
    def preparation(cls, model: LanguageModel) -> str | None:
        """Compiling, where that was not done before."""
        if is_kept(loops.run) and (model.experts is None or is_kept(tell_experts)):
            return None
        seconds = 15 if model.experts is None else 40
        return f"compiling its loops for this machine, once, for some {seconds} seconds"

    def __init__(self, model: LanguageModel, batch_size: int, packed: Packed | None = None) -> None:
        super().__init__(model, batch_size)
        self.packed = pack(model) if packed is None else packed
        self.program: Program = self.packed.program
        self.n_rows = batch_size * model.n_sequences
        # Made by torch for its alignment.
        self._memory = torch.zeros(self.n_rows, self.packed.row_size).numpy()
        bank = self.program.experts
        self._experts = np.zeros((self.n_rows, 0 if bank is None else bank.plan.size))
        self._phase = 0

    def like(self, batch_size: int) -> "CompiledEngine":
        """Another one with the same packed weights."""
        return CompiledEngine(self.model, batch_size, self.packed)

    def step(self, codes: Int64[Tensor, "batch length channels"]) -> Float[Tensor, "rows length width"]:
        """Feed known frames one by one. Codes that the model does not have would be read from anywhere."""
        folded = self.model.fold(codes).contiguous()
        hidden = torch.empty(self.n_rows, codes.shape[1], self.model.backbone.width)
        self._run(folded, torch.zeros(self.n_rows, 0, 1, 1, dtype=torch.float64), Sampler(), hidden)
        return hidden

    def draw(self, sampler: Sampler, uniforms: Float64[Tensor, "batch length channels n_uniforms"]) -> Frames:
        """Draw by the functions of `draw.py`."""
        folded = self.model.fold(uniforms).contiguous()
        codes = torch.empty(folded.shape[:3], dtype=torch.int64)
        log_prob = self._run(codes, folded, sampler, torch.empty(self.n_rows, 0, 1))
        return Frames(self.model.unfold(codes), self.model.unfold(log_prob))

    def state(self) -> EngineState:
        """A copy of what the rows carry."""
        slots, memory = self.packed.slots, self._memory
        states = tuple(None if slot is None else slot.read(memory, self._phase) for slot in slots)
        if self.program.experts is not None:
            states += (torch.from_numpy(self._experts.copy()),)
        hidden = torch.from_numpy(memory[:, None, : self.model.backbone.width].copy())
        return EngineState(SashimiState(self._phase, states), hidden)

    def restore(self, state: EngineState) -> None:
        """Go on from there."""
        self._phase, states = state.backbone
        if self.model.experts is not None:
            *_, experts = states
            assert experts is not None
            states = states[:-1]
            self._experts[...] = self.model.experts.checked(experts, self.n_rows).numpy()
        for slot, carried in zip(self.packed.slots, states, strict=True):
            if slot is not None and carried is not None:
                slot.write(self._memory, self._phase, carried)
        self._memory[:, : self.model.backbone.width] = state.hidden.squeeze(1).numpy()
        make_ready(self.program, self.rows(0, self.n_rows))

    def rows(self, first: int, last: int) -> Rows:
        """These rows, for compiled loops."""
        return Rows(self._memory.reshape(-1), self.packed.row_size, first, last, self._experts)

    def walk(self, n_frames: int, task: Callable[[Rows, int], None], n_rows: int | None = None, unit: int = 1) -> None:
        """Call `task(rows, phase)`, which walks through `n_frames` frames, for parts of the rows on as many threads.

        Args:
            n_frames: afterwards the engine stands so much further.
            task: compiled loops on a part of the rows.
            n_rows: only the first ones; None for all.
            unit: a part has a multiple of so many rows.

        Raises:
            NonFiniteOutputError: the features are not finite.
        """
        units = (self.n_rows if n_rows is None else n_rows) // unit
        threads, phase = min(torch.get_num_threads(), units), self._phase
        bounds = [units * i // threads * unit for i in range(threads + 1)]
        for_each(lambda first, last: task(self.rows(first, last), phase), list(pairwise(bounds)))
        self._phase = (phase + n_frames) % self.model.backbone.stride
        if not np.isfinite(self._memory[:, : self.model.backbone.width]).all():
            raise NonFiniteOutputError

    def _run(self, codes: Tensor, uniforms: Tensor, sampler: Sampler, hidden: Tensor) -> Tensor:
        log_prob = torch.zeros(codes.shape)
        arrays = codes.numpy(), uniforms.numpy(), sampling_of(sampler), log_prob.numpy(), hidden.numpy()
        self.walk(codes.shape[1], lambda rows, phase: loops.run(self.program, rows, phase, *arrays))
        if not np.isfinite(arrays[3]).all():
            raise NonFiniteOutputError
        return log_prob
