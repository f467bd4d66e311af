"""What a pickle would cost, found out without building anything of it.

The machine of torch's `weights_only` unpickler, with the size of each object in the object's place. A size counts what
an object holds wherever it occurs, as those do who hash, copy or print it; `data.pkl` of 3 MB can say 2**1000.
"""

import pickletools
import re
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Container
from typing import Any

import torch

# Steps of the unpickler, with all that calls copy and keys hash. An honest tensor takes some 50: these are 20,000.
MAX_STEPS = 1_000_000
MAX_VALUES = 1_000_000
# So many characters of text count as one value.
CHARACTERS = 16
# A call takes the time of so many other steps.
_CALL = 10
# What a checkpoint may name, and what it may be called with where another kind of argument would cost memory.
CALLS: dict[str, str | None] = {
    "collections.OrderedDict": "()",
    "collections.Counter": "{}",
    "builtins.set": "[]",
    "_codecs.encode": "latin1",
    "torch.Size": "()",
    "torch.device": None,
    "torch._utils._rebuild_tensor_v2": None,
    "torch._utils._rebuild_parameter": None,
    "torch._utils._rebuild_sparse_tensor": None,
    "torch._utils._rebuild_meta_tensor_no_storage": None,
    "torch.serialization._get_layout": None,
}
_LEAVES = ("NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "BINFLOAT", "LONG1")
_EMPTY = {"EMPTY_DICT": "{}", "EMPTY_LIST": "[]", "EMPTY_TUPLE": "()", "EMPTY_SET": "set"}
_TEXTS = ("BINUNICODE", "SHORT_BINSTRING")
_TAKEN = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3, "APPEND": 1, "SETITEM": 2, "BUILD": 1, "REDUCE": 2, "NEWOBJ": 2}
_TO_MARK = ("TUPLE", "APPENDS", "SETITEMS")


class TooLarge(ValueError):
    """What a file asks for is out of proportion to it."""


class _Slot:
    """What is known of an object.

    - `size`: its values, each counted wherever it occurs.
    - `note`: short text itself, the name of a class, of an object's class or of what returned it, or the kind of a
      container; of a tuple `()`, with the note of its last item behind it.
    """

    __slots__ = ("note", "size")

    def __init__(self, size: int, note: str = "") -> None:
        if size > MAX_VALUES:
            raise TooLarge(f"it holds more than {MAX_VALUES} values, repeated ones counted as often as they occur")
        self.size, self.note = size, note


def refused_names(data: bytes, stand_ins: Container[str]) -> set[str]:
    """The names in a pickle that are neither in CALLS nor in `stand_ins`, nor types of torch.

    Raises TooLarge if it would cost more than MAX_STEPS, or holds an object of more than MAX_VALUES; any error for
    what is no such pickle.
    """
    machine = _Machine(stand_ins)
    for opcode, argument, _ in pickletools.genops(data):
        machine.step(opcode.name, argument)
    return machine.refused


class _Machine:
    def __init__(self, stand_ins: Container[str]) -> None:
        self.refused: set[str] = set()
        self._stand_ins = stand_ins
        self._stack: list[_Slot] = []
        self._below: list[list[_Slot]] = []
        self._memo: dict[int, _Slot] = {}
        self._steps = 0

    def step(self, name: str, argument: Any) -> None:
        self._charge(1)
        if name in ("BINPUT", "LONG_BINPUT"):
            self._memo[argument] = self._stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            self._stack.append(self._memo[argument])
        elif name == "MARK":
            self._below.append(self._stack)
            self._stack = []
        elif name in _TO_MARK:
            items, self._stack = self._stack, self._below.pop()
            self._combine(name, items)
        elif name in _TAKEN:
            self._combine(name, [self._stack.pop() for _ in range(_TAKEN[name])][::-1])
        elif name in _LEAVES or name in _EMPTY:
            self._stack.append(_Slot(1, _EMPTY.get(name, "")))
        elif name in _TEXTS:
            self._stack.append(_Slot(1 + len(argument) // CHARACTERS, argument[:CHARACTERS]))
        elif name == "GLOBAL":
            self._stack.append(_Slot(1, self._global(argument)))
        elif name == "BINPERSID":
            self._stack[-1] = _Slot(1, "storage")
        elif name not in ("PROTO", "STOP"):
            raise ValueError(f"{name} is no step of torch's unpickler")

    def _charge(self, steps: int) -> None:
        self._steps += steps
        if self._steps > MAX_STEPS:
            raise TooLarge(f"reading it takes more than {MAX_STEPS} steps, repeats counted as often as they occur")

    def _global(self, argument: str) -> str:
        # Protocol 2 has the names of Python 2; this is how torch reads them.
        module, _, name = argument.partition(" ")
        module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        full = f"{module}.{name}"
        of_torch = module == "torch" and (
            isinstance(getattr(torch, name, None), torch.dtype) or re.fullmatch(r"[A-Z]\w+(?<!Typed)Storage", name)
        )
        if full not in CALLS and full not in self._stand_ins and not (of_torch and name != "UntypedStorage"):
            self.refused.add(full)
        return full

    def _combine(self, name: str, items: list[_Slot]) -> None:
        size = sum(item.size for item in items)
        if name.startswith("TUPLE"):
            self._stack.append(_Slot(1 + size, f"(){items[-1].note if items else ''}"[:64]))
        elif name in ("REDUCE", "NEWOBJ"):
            self._call(name, items[0].note, items[1])
        else:
            target = self._stack[-1]
            if name == "BUILD":
                # A state is copied into the object.
                self._charge(size)
                if target.note not in (*self.refused, "collections.OrderedDict") and target.note not in self._stand_ins:
                    raise ValueError(f"{target.note or 'a value'} is given a state")
            elif name.startswith("SETITEM"):
                self._charge(sum(key.size for key in items[::2]))
            target.size = _Slot(target.size + size).size

    def _call(self, name: str, function: str, arguments: _Slot) -> None:
        self._charge(_CALL + arguments.size)
        if function not in self._stand_ins and function not in self.refused:
            if name == "NEWOBJ" or function not in CALLS:
                raise ValueError(f"{function or 'a value'} is called")
            wanted = CALLS[function]
            if wanted is not None and arguments.note not in (f"(){wanted}", wanted):
                raise ValueError(f"{function} is called with something else than {wanted}")
        self._stack.append(_Slot(1 + arguments.size, function))
