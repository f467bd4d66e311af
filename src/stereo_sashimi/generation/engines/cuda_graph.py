"""CudaGraphEngine: a frame is one replay of a CUDA graph, from its random numbers to the state that it leaves.

Which levels of the backbone are due, and how many frames wait in its pools, depends on the phase, so there is a graph
for every phase of the period prod(pool). A graph reads and writes buffers that stay where they are: the state, and
rows of random numbers, codes and log-probabilities, at a position that it moves on by itself. So the host launches
frame after frame without waiting for any. Graphs are captured when a phase comes for the first time.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import ClassVar

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from stereo_sashimi.distributions.sampler import Sampler
from stereo_sashimi.generation.engines.engine import Engine, EngineError, EngineState, Frames, NonFiniteOutputError
from stereo_sashimi.generation.engines.fused import fuse
from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.models.sashimi import SashimiState
from stereo_sashimi.ops.backend_error import BackendError
from stereo_sashimi.ops.kernels import triton

log = logging.getLogger(__name__)

Work = Callable[[], None]


class CudaGraphs:
    """Captures work on one device.

    All graphs share the memory of what they compute on the way: two of them never run at once, and each leaves its
    results in buffers that were allocated outside.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)
        self.pool = torch.cuda.graph_pool_handle()

    def warm_up(self, work: Work) -> None:
        """Run `work` where it will be captured: libraries set themselves up in their first call."""
        with torch.cuda.device(self.device):
            current = torch.cuda.current_stream()
            self.stream.wait_stream(current)
            with torch.cuda.stream(self.stream):
                work()
            current.wait_stream(self.stream)

    def capture(self, work: Work) -> Work:
        """Record what `work` launches, without running it; calling the result runs it."""
        graph = torch.cuda.CUDAGraph()
        # Other threads, such as a loader that pins memory, may go on meanwhile.
        with (
            torch.cuda.device(self.device),
            torch.cuda.graph(graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"),
        ):
            work()
        return graph.replay


class CudaGraphEngine(Engine):
    """One graph launch a frame, on a CUDA device.

    - `fused`: whether S4 steps and DML draws run as Triton programs; a frame then takes a third of the kernels. None:
      where Triton runs, and else a warning says why not.
    """

    name: ClassVar[str] = "cudagraph"
    BLOCK_FRAMES: ClassVar[int] = 256  # rows of the buffers
    MAX_SAMPLERS: ClassVar[int] = 4  # whose graphs are kept
    graphs: ClassVar[Callable[[torch.device], CudaGraphs]] = CudaGraphs

    @torch.no_grad()
    def __init__(self, model: LanguageModel, batch_size: int, fused: bool | None = None) -> None:
        super().__init__(model, batch_size)
        weights = next(model.parameters())
        self._model = fuse(model) if (_can_fuse() if fused is None else fused) else model
        self._graphs = type(self).graphs(weights.device)
        self._draws: OrderedDict[Sampler, dict[int, Work]] = OrderedDict()
        self._steps: dict[int, Work] = {}
        rows = (self.BLOCK_FRAMES, batch_size, model.spec.n_channels)
        self._uniforms = weights.new_zeros(*rows, model.head.n_uniforms, dtype=torch.float64)
        self._codes = weights.new_zeros(rows, dtype=torch.int64)
        self._log_probs = weights.new_zeros(rows, dtype=torch.promote_types(weights.dtype, torch.float32))
        self._row = weights.new_zeros(1, dtype=torch.int64)
        self._phase = 0
        self._layers, self._hidden = self._state_buffers()
        self._features: Tensor | None = None  # rows too, for `step`

    def like(self, batch_size: int) -> "CudaGraphEngine":
        """Another one of the same model, fused or not as this one is."""
        return type(self)(self.model, batch_size, self._model is not self.model)

    @classmethod
    def check(cls, model: LanguageModel) -> None:
        """It needs a CUDA device, and a model without experts."""
        if model.experts is not None:
            raise EngineError(
                "engine=cudagraph keeps a frame on the device, and adaptive experts run on the CPU. Use engine=auto."
            )
        device = next(model.parameters()).device
        if device.type != "cuda":
            raise EngineError(
                f"engine=cudagraph needs a CUDA device, and the model is on {device}. Move it to one (device=cuda), or "
                "use engine=auto."
            )

    @torch.no_grad()
    def step(self, codes: Int64[Tensor, "batch length channels"]) -> Float[Tensor, "rows length width"]:
        """Feed known frames, a launch for each."""
        if self._features is None:
            self._features = self._hidden.new_zeros(self.BLOCK_FRAMES, len(self._hidden), self._hidden.shape[-1])
        hidden = []
        for block in codes.split(self.BLOCK_FRAMES, dim=1):
            n_frames = block.shape[1]
            self._codes[:n_frames].copy_(block.transpose(0, 1))
            self._replay(n_frames, self._steps, self._step_frame)
            hidden.append(self._taken(self._features, n_frames))
        return torch.cat(hidden, dim=1)

    @torch.no_grad()
    def draw(self, sampler: Sampler, uniforms: Float64[Tensor, "batch length channels n_uniforms"]) -> Frames:
        """Draw by the head's own `sample`. From frame to frame nothing waits for the device."""
        graphs = self._graphs_of(sampler)
        frames = []
        # In one copy: the host waits for it, as the memory it comes from is not pinned.
        for block in uniforms.to(self._row.device).split(self.BLOCK_FRAMES, dim=1):
            n_frames = block.shape[1]
            self._uniforms[:n_frames].copy_(block.transpose(0, 1))
            self._replay(n_frames, graphs, partial(self._draw_frame, sampler))
            codes, log_prob = self._taken(self._codes, n_frames), self._taken(self._log_probs, n_frames)
            frames.append((codes, log_prob))
        drawn = Frames(*(torch.cat(parts, dim=1) for parts in zip(*frames, strict=True)))
        self._check_finite(drawn.log_prob)
        return drawn

    def state(self) -> EngineState:
        """A copy."""
        layers = tuple(None if x is None else x.clone() for x in self._layers[self._phase])
        return EngineState(SashimiState(self._phase, layers), self._hidden.clone())

    @torch.no_grad()
    def restore(self, state: EngineState) -> None:
        """Copy into the buffers."""
        (self._phase, layers), hidden = state
        for buffer, value in zip((self._hidden, *self._layers[self._phase]), (hidden, *layers), strict=True):
            if buffer is not None and value is not None:
                buffer.copy_(value)

    def _state_buffers(self) -> tuple[list[tuple[Tensor | None, ...]], Tensor]:
        """The buffers that hold the layers' state in each phase, and the one of the features.

        One walk through a period shows their shapes. Phases share a buffer where its shape is the same.
        """
        state, known = self.model.initial_state(self.batch_size), {}
        codes = self.model.start_codes(self.batch_size)[:, :1]
        phases, hidden = [], codes
        for _ in range(self.model.backbone.stride):
            keys = [None if x is None else (i, x.shape) for i, x in enumerate(state.layers)]
            for key, x in zip(keys, state.layers, strict=True):
                if key is not None and x is not None and key not in known:
                    known[key] = x.contiguous().clone()
            phases.append(tuple(None if key is None else known[key] for key in keys))
            hidden, state = self.model(codes, state)
        return phases, hidden.contiguous().clone()

    def _graphs_of(self, sampler: Sampler) -> dict[int, Work]:
        """The graphs by phase that draw with this sampler; its numbers are part of them. The latest few are kept."""
        graphs = self._draws.setdefault(sampler, {})
        self._draws.move_to_end(sampler)
        while len(self._draws) > self.MAX_SAMPLERS:
            self._draws.popitem(last=False)
        return graphs

    def _replay(self, n_frames: int, graphs: dict[int, Work], frame: Callable[[int], None]) -> None:
        """Run `frame` as a graph `n_frames` times, from row 0 of the buffers on."""
        self._row.zero_()
        for _ in range(n_frames):
            if self._phase not in graphs:
                graphs[self._phase] = self._captured(partial(frame, self._phase))
            graphs[self._phase]()
            self._phase = (self._phase + 1) % len(self._layers)

    def _captured(self, work: Work) -> Work:
        buffers = [self._row, self._codes, self._log_probs, self._hidden]
        buffers += [x for layers in self._layers for x in layers if x is not None]
        buffers += [] if self._features is None else [self._features]
        # Phases share buffers.
        saved = [(buffer, buffer.clone()) for buffer in {id(buffer): buffer for buffer in buffers}.values()]
        self._graphs.warm_up(work)
        for buffer, value in saved:
            buffer.copy_(value)
        return self._graphs.capture(work)

    # What is captured: no line here reads a number back, or brings one from the host.

    def _draw_frame(self, sampler: Sampler, phase: int) -> None:
        uniforms = self._uniforms.index_select(0, self._row).transpose(0, 1)
        codes, log_prob = self._model.sample(self._hidden, uniforms, sampler)
        self._codes.index_copy_(0, self._row, codes.transpose(0, 1))
        self._log_probs.index_copy_(0, self._row, log_prob.transpose(0, 1))
        self._advance(codes, phase)
        self._row.add_(1)

    def _step_frame(self, phase: int) -> None:
        assert self._features is not None
        self._advance(self._codes.index_select(0, self._row).transpose(0, 1), phase)
        self._features.index_copy_(0, self._row, self._hidden.transpose(0, 1))
        self._row.add_(1)

    def _advance(self, codes: Tensor, phase: int) -> None:
        """Feed one frame; the buffers then hold what it leaves."""
        hidden, after = self._model(codes, SashimiState(phase, self._layers[phase]))
        pairs = [(self._hidden, hidden)]
        for buffer, value in zip(self._layers[after.phase], after.layers, strict=True):
            # Levels that were not due hand back what they were given, and so do fused layers.
            if buffer is not None and value is not None and value is not buffer and value.numel():
                # As real numbers, so that one kernel copies all.
                real = torch.view_as_real if value.is_complex() else torch.Tensor.detach
                pairs.append((real(buffer), real(value)))
        torch._foreach_copy_([buffer for buffer, _ in pairs], [value for _, value in pairs])

    def _check_finite(self, log_prob: Tensor) -> None:
        # Tensors without numbers, as tests have them, cannot be looked into.
        if not log_prob.is_meta and not (log_prob.isfinite().all() & self._hidden.isfinite().all()).item():
            raise NonFiniteOutputError

    def _taken(self, rows: Tensor, n_frames: int) -> Tensor:
        """A copy of the first rows, (batch, n_frames, ..); the next block overwrites them."""
        return rows[:n_frames].transpose(0, 1).clone(memory_format=torch.contiguous_format)


def _can_fuse() -> bool:
    """Whether Triton's programs run here; says why not in the log."""
    try:
        triton.probe()
    except BackendError as error:
        log.warning("cudagraph runs without fused steps, so that frames take more kernels: %s", error)
        return False
    return True
