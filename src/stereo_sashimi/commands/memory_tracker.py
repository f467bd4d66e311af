"""How many bytes of tensors are alive, and the most there were: counted op by op, also for tensors without data.

`memory.py` runs a training step under PyTorch's FakeTensorMode, where tensors have shapes but no memory, inside this
tracker. What a kernel allocates inside one op (cuFFT's workspace, MKL's buffers) is not seen.
"""

import weakref
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

OUTSIDE = "elsewhere"


class MemoryTracker(TorchDispatchMode):
    """Counts the storages of all tensors that are made while it is active.

    - `rounding`: bytes that an allocator hands out at a time: 64 on CPUs, 512 on CUDA devices.

    `current` and `peak` are bytes; `by_room` those alive now, by the room (`in_room`, `watch`) that was active when
    they were made; `at_peak` is `by_room` as it was at the peak.
    """

    def __init__(self, rounding: int = 64) -> None:
        super().__init__()
        self.rounding = rounding
        self.current = self.peak = 0
        self.by_room: Counter[str] = Counter()
        self.at_peak: Counter[str] = Counter()
        self._room = OUTSIDE
        self._known: dict[int, tuple[int, str]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one op and count what it made."""
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._add(leaf)
        return result

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        # The address of the C++ object: its own as long as it lives, and it is forgotten when it dies.
        key = storage._cdata
        if key in self._known:
            return
        size = -(-storage.nbytes() // self.rounding) * self.rounding
        self._known[key] = (size, self._room)
        weakref.finalize(storage, self._remove, key)
        self.current += size
        self.by_room[self._room] += size
        if self.current > self.peak:
            self.reset_peak()

    def _remove(self, key: int) -> None:
        size, room = self._known.pop(key)
        self.current -= size
        self.by_room[room] -= size

    def move(self, tensor: Tensor, room: str) -> None:
        """Count the storage of a tensor in another room from now on."""
        key = tensor.untyped_storage()._cdata
        size, before = self._known[key]
        self._known[key] = (size, room)
        self.by_room[before] -= size
        self.by_room[room] += size

    def reset_peak(self) -> None:
        """Take what is alive now for the peak."""
        self.peak, self.at_peak = self.current, self.by_room.copy()

    @contextmanager
    def in_room(self, name: str) -> Iterator[None]:
        """What is made inside belongs to the room `name`."""
        before, self._room = self._room, name
        try:
            yield
        finally:
            self._room = before

    @contextmanager
    def watch(self, rooms: Mapping[str, Iterable[nn.Module]]) -> Iterator[None]:
        """What the forward pass of a module makes belongs to its room."""
        handles: list[Any] = []
        before: list[str] = []

        def leave(module: nn.Module, args: Any, result: Any) -> None:
            self._room = before.pop()

        for name, modules in rooms.items():

            def enter(module: nn.Module, args: Any, name: str = name) -> None:
                before.append(self._room)
                self._room = name

            for module in modules:
                handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
